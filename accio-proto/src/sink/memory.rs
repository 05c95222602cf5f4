//! A sink that stores files in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FileSink, OpenError, SinkFile};
use crate::connection::Connection;

/// Stores every file in memory: for tests, and for programs that process small uploads immediately.
///
/// Clones share the files. The memory is unlimited, so a server that accepts connections from
/// unknown clients must limit the size of uploads.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    files: Arc<Mutex<BTreeMap<u64, Stored>>>,
}

/// The stored result of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The complete content.
    Complete(Vec<u8>),
    /// The transfer failed, and its content was discarded.
    Error,
}

/// A file in memory, not yet complete.
#[derive(Debug)]
pub struct MemoryFile {
    id: u64,
    content: Vec<u8>,
    sink: MemorySink,
}

impl MemorySink {
    /// Returns an empty sink.
    pub fn new() -> Self {
        MemorySink::default()
    }

    /// Returns the result of connection `id`, once it has ended.
    pub fn get(&self, id: u64) -> Option<Stored> {
        self.files().get(&id).cloned()
    }

    /// Returns the results of all connections that have ended, by number.
    pub fn all(&self) -> BTreeMap<u64, Stored> {
        self.files().clone()
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<u64, Stored>> {
        // Each access is a single operation, so the map is consistent even after a panic elsewhere.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileSink for MemorySink {
    type File = MemoryFile;

    fn open(&self, connection: &Connection) -> Result<MemoryFile, OpenError> {
        Ok(MemoryFile { id: connection.id, content: Vec::new(), sink: self.clone() })
    }
}

impl SinkFile for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.extend_from_slice(bytes);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        self.sink.files().insert(self.id, Stored::Complete(std::mem::take(&mut self.content)));
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        self.sink.files().insert(self.id, Stored::Error);
        Ok(())
    }
}
