//! Any sink, as one type: each further type of sink would compile the whole server once more.

use std::any::Any;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use accio_proto::{Connection, Demand, FileSink, OpenError, SinkFile};

/// The sink of all tests of the whole server.
pub(crate) struct AnySink(Box<dyn ErasedSink>);

/// A file of any sink.
pub(crate) struct AnyFile(Box<dyn ErasedFile>);

/// [`FileSink`] without its type of files.
trait ErasedSink: Send + Sync {
    fn open(&self, connection: &Connection) -> Result<AnyFile, OpenError>;
    fn mark(&self, connection: &Connection) -> io::Result<()>;
    fn has_room(&self) -> bool;
    fn blocks(&self) -> bool;
    fn commits_in_groups(&self) -> bool;
    fn commit_all(
        &self,
        files: &mut [&mut AnyFile],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>>;
    fn stopping(&self);
    fn tidy(&self);
}

trait ErasedFile: SinkFile + Any {}

impl<F: SinkFile> ErasedFile for F {}

impl AnySink {
    pub(crate) fn new(sink: impl FileSink) -> Self {
        AnySink(Box::new(sink))
    }
}

impl<K: FileSink> ErasedSink for K {
    fn open(&self, connection: &Connection) -> Result<AnyFile, OpenError> {
        FileSink::open(self, connection).map(|file| AnyFile(Box::new(file)))
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        FileSink::mark(self, connection)
    }

    fn has_room(&self) -> bool {
        FileSink::has_room(self)
    }

    fn blocks(&self) -> bool {
        FileSink::blocks(self)
    }

    fn commits_in_groups(&self) -> bool {
        FileSink::commits_in_groups(self)
    }

    fn commit_all(
        &self,
        files: &mut [&mut AnyFile],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        let any = files.iter_mut().map(|file| &mut *file.0 as &mut dyn Any);
        let mut files: Vec<_> = any.map(|file| file.downcast_mut::<K::File>().unwrap()).collect();
        FileSink::commit_all(self, &mut files, may_name)
    }

    fn stopping(&self) {
        FileSink::stopping(self);
    }

    fn tidy(&self) {
        FileSink::tidy(self);
    }
}

impl FileSink for AnySink {
    type File = AnyFile;

    fn open(&self, connection: &Connection) -> Result<AnyFile, OpenError> {
        self.0.open(connection)
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.0.mark(connection)
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn blocks(&self) -> bool {
        self.0.blocks()
    }

    fn commits_in_groups(&self) -> bool {
        self.0.commits_in_groups()
    }

    fn commit_all(
        &self,
        files: &mut [&mut AnyFile],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        self.0.commit_all(files, may_name)
    }

    fn stopping(&self) {
        self.0.stopping();
    }

    fn tidy(&self) {
        self.0.tidy();
    }
}

impl SinkFile for AnyFile {
    fn demand(&self) -> Demand<'_> {
        self.0.demand()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes)
    }

    fn is_full(&self) -> bool {
        self.0.is_full()
    }

    fn advance(&mut self, count: u64) {
        self.0.advance(count);
    }

    fn prepare_review(&mut self) -> io::Result<()> {
        self.0.prepare_review()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    fn reopen(&self) -> Option<OwnedFd> {
        self.0.reopen()
    }

    fn commit(&mut self) -> io::Result<()> {
        self.0.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        self.0.abort()
    }
}
