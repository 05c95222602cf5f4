//! The sink that keeps files in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{FileSink, SinkFile};

/// Keeps every file in memory: for tests, and for programs that look at small uploads at once.
///
/// Clones share the files. Nothing bounds the memory: a server that faces strangers limits the
/// size of uploads itself.
#[derive(Debug, Clone, Default)]
pub struct MemorySink {
    files: Arc<Mutex<BTreeMap<u64, Stored>>>,
}

/// What is kept of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The complete content.
    Complete(Vec<u8>),
    /// The transfer failed; the content is gone.
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
    /// An empty sink.
    pub fn new() -> Self {
        MemorySink::default()
    }

    /// What is kept of connection `id`, once it ended.
    pub fn get(&self, id: u64) -> Option<Stored> {
        self.files().get(&id).cloned()
    }

    /// What is kept of all connections that ended, by id.
    pub fn all(&self) -> BTreeMap<u64, Stored> {
        self.files().clone()
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<u64, Stored>> {
        // Each access is one whole step, so a panic elsewhere leaves the map as good as it was.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileSink for MemorySink {
    type File = MemoryFile;

    fn open(&self, id: u64) -> io::Result<MemoryFile> {
        Ok(MemoryFile { id, content: Vec::new(), sink: self.clone() })
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
