//! A sink that counts, and panics on request.

use std::io;

use accio_proto::{Connection, CountFile, CountSink, Demand, FileSink, OpenError, SinkFile};

/// Counts bytes like [`CountSink`], but panics when the connection with a given number sends
/// content. Tests use it to show that the released program survives a panic.
pub(crate) struct PanickingSink {
    pub(crate) panic_on: Option<u64>,
}

pub(crate) struct PanickingFile {
    file: CountFile,
    panics: bool,
}

impl FileSink for PanickingSink {
    type File = PanickingFile;

    fn open(&self, connection: &Connection) -> Result<PanickingFile, OpenError> {
        let panics = self.panic_on == Some(connection.id);
        Ok(PanickingFile { file: CountSink.open(connection)?, panics })
    }
}

impl SinkFile for PanickingFile {
    fn demand(&self) -> Demand<'_> {
        self.file.demand()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.advance(bytes.len() as u64);
        Ok(())
    }

    fn advance(&mut self, _count: u64) {
        assert!(!self.panics, "requested by --panic-on");
    }

    fn commit(&mut self) -> io::Result<()> {
        self.file.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        self.file.abort()
    }
}
