//! A sink that stores nothing.

use std::io;

use super::{Demand, FileSink, OpenError, SinkFile};
use crate::connection::Connection;

/// Counts the bytes of each connection and drops them, without a copy if the kernel supports it.
/// The count is part of the connection's [`Outcome`](crate::Outcome).
#[derive(Debug, Clone, Copy, Default)]
pub struct CountSink;

/// A file that is only counted.
#[derive(Debug)]
pub struct CountFile(());

impl FileSink for CountSink {
    type File = CountFile;

    fn open(&self, _connection: &Connection) -> Result<CountFile, OpenError> {
        Ok(CountFile(()))
    }
}

impl SinkFile for CountFile {
    fn demand(&self) -> Demand<'_> {
        Demand::Count
    }

    fn write(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}
