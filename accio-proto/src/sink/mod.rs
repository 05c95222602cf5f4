//! Destinations of content: the sink traits, and the three sinks of the library.

mod count;
mod dir;
mod memory;

use std::io;
use std::os::fd::BorrowedFd;

pub use count::{CountFile, CountSink};
pub use dir::{DirError, DirErrorKind, DirFile, DirOptions, DirSink, Existing};
pub use memory::{MemoryFile, MemorySink, Stored};

/// Content of the file of a failed transfer: these five bytes and nothing else.
pub const ERROR_MARKER: &[u8] = b"ERROR";

/// Stores the files of a server, one per connection.
///
/// For each connection a server calls [`open`](FileSink::open), then feeds the [`SinkFile`], then
/// ends it with exactly one successful [`commit`](SinkFile::commit) or
/// [`abort`](SinkFile::abort), and drops it. All calls for one file come from one thread at a
/// time, not always the same; different files are served at the same time. A call may block: it
/// delays its own connection and occupies one thread (see [`blocks`](FileSink::blocks)). The time
/// it takes never counts as the peer's silence. A call that panics counts as one that failed.
pub trait FileSink: Send + Sync + 'static {
    /// The file of a connection.
    type File: SinkFile;

    /// Opens the file of connection `id`, after its first byte of content or its end has arrived.
    ///
    /// Nothing of it may be visible before the commit or the abort.
    ///
    /// # Errors
    ///
    /// The connection is aborted, and [`mark`](FileSink::mark) must leave the error marker.
    fn open(&self, id: u64) -> io::Result<Self::File>;

    /// Stores [`ERROR_MARKER`] for connection `id`, whose file was never opened or could not be
    /// aborted.
    ///
    /// # Errors
    ///
    /// Nothing is stored. The error is logged and becomes part of the outcome.
    fn mark(&self, id: u64) -> io::Result<()> {
        self.open(id)?.abort()
    }

    /// Returns whether there is room for another file. While there is none, connections wait in the
    /// backlog, and the server asks again ten times a second. While there is, the server may use an
    /// answer for a tenth of a second, or for as long as the next call takes.
    fn has_room(&self) -> bool {
        true
    }

    /// Returns whether calls may block for long, as those of a remote store do. The server then
    /// gives each connection a thread of its own ([`PerSession`](crate::Threading::PerSession)),
    /// unless it is configured otherwise. Called once.
    fn blocks(&self) -> bool {
        false
    }

    /// Returns whether a commit waits for the disk, so that several commits together are faster
    /// than one after the other. The [reactor](crate::Threading::Reactor) then collects waiting
    /// commits and calls [`commit_all`](FileSink::commit_all). Called once.
    fn commits_in_groups(&self) -> bool {
        false
    }

    /// Commits several files, as [`SinkFile::commit`] does for one; returns the result of each in
    /// the same order.
    ///
    /// Calls `may_name` with a file's index right before that file becomes visible. If the answer
    /// is no, the connection has been ended meanwhile, and the file must stay invisible; its result
    /// does not matter.
    fn commit_all(
        &self,
        files: &mut [&mut Self::File],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        let commit = |(index, file): (usize, &mut &mut Self::File)| match may_name(index) {
            true => file.commit(),
            false => Err(io::ErrorKind::Interrupted.into()),
        };
        files.iter_mut().enumerate().map(commit).collect()
    }

    /// Does work for which no connection has to wait, such as writing error markers to the disk.
    /// The reactor calls it after it has dropped aborted files, on a thread of its own.
    fn tidy(&self) {}
}

/// The file of a connection, from its first byte to commit or abort.
///
/// Dropped without either, as after a panic, it must leave nothing behind. Releasing the storage of
/// discarded content may take long; that belongs into `drop`, for the server drops an aborted file
/// only after the peer was told.
pub trait SinkFile: Send + 'static {
    /// Returns how the file takes the next bytes. Called before every step.
    fn demand(&self) -> Demand<'_> {
        Demand::Bytes
    }

    /// Stores the next bytes, all of them.
    ///
    /// # Errors
    ///
    /// The transfer is over; [`abort`](SinkFile::abort) follows.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Notes that `count` bytes were moved as [`demand`](SinkFile::demand) requested, other than by
    /// [`write`](SinkFile::write): into the descriptor, or only counted.
    fn advance(&mut self, count: u64) {
        let _ = count;
    }

    /// Stores the complete content. The peer is told once this returns.
    ///
    /// # Errors
    ///
    /// Nothing of it may be visible; [`abort`](SinkFile::abort) follows.
    fn commit(&mut self) -> io::Result<()>;

    /// Stores [`ERROR_MARKER`], and nothing of the content, after the transfer has failed.
    ///
    /// # Errors
    ///
    /// Nothing of it may be visible; [`FileSink::mark`] must leave the marker.
    fn abort(&mut self) -> io::Result<()>;
}

/// How a file takes its next bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Demand<'a> {
    /// From a buffer, by [`SinkFile::write`].
    Bytes,
    /// Moved into this descriptor at its position if the kernel can do that; otherwise by
    /// [`SinkFile::write`].
    Descriptor(BorrowedFd<'a>),
    /// Only counted. If that needs a buffer, the bytes are dropped from it.
    Count,
}
