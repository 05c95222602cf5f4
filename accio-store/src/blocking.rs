//! The sink for servers whose sinks block: waits for the asynchronous one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use accio_proto::{Connection, FileSink, OpenError, SinkFile};
use accio_tokio::{AsyncFileSink, AsyncSinkFile};
use tokio::runtime::Runtime;

use crate::file::AsyncStoreFile;
use crate::program_log as log;
use crate::sink::AsyncStoreSink;

/// A [`FileSink`] that stores files in an object store, created by
/// [`StoreOptions::open`](crate::StoreOptions::open).
///
/// Clones share the store and the memory budget. Each connection occupies a thread of the server;
/// [`AsyncStoreSink`] needs none.
///
/// # Panics
///
/// A sink and its files wait for a runtime of their own. So their methods panic in a task of any tokio
/// runtime, and so does dropping the last clone of a sink or an unfinished file. Threads for blocking
/// work, on which [`accio_tokio::serve`] calls a sink, are no tasks.
#[derive(Debug, Clone)]
pub struct StoreSink {
    sink: AsyncStoreSink,
    runtime: Arc<Runtime>,
}

/// The content of one connection, on its way to the store.
#[derive(Debug)]
pub struct StoreFile {
    file: AsyncStoreFile,
    runtime: Arc<Runtime>,
}

impl StoreSink {
    /// How long aborting unfinished uploads may take after [`close`](Self::close).
    pub const CLOSE_TIMEOUT: Duration = AsyncStoreSink::CLOSE_TIMEOUT;

    pub(crate) fn new(sink: AsyncStoreSink, runtime: Runtime) -> Self {
        StoreSink { sink, runtime: Arc::new(runtime) }
    }

    /// Returns the address of the store, without a password.
    pub fn address(&self) -> &str {
        self.sink.address()
    }

    /// Returns the path of connection `id`'s object in the store: `PREFIX/NODE/N.file`.
    pub fn path(&self, id: u64) -> String {
        self.sink.path(id)
    }

    /// Returns the highest number of this node's objects in the store.
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot list them.
    pub fn highest(&self) -> io::Result<Option<u64>> {
        self.runtime.block_on(self.sink.highest())
    }

    /// Makes every current and future wait for memory or for the store fail.
    ///
    /// The server calls this when it stops, so that a store that does not answer delays the end of
    /// each upload by at most [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT) instead of a minute.
    pub fn close(&self) {
        self.sink.close();
    }
}

impl FileSink for StoreSink {
    type File = StoreFile;

    fn open(&self, connection: &Connection) -> Result<StoreFile, OpenError> {
        let file = self.runtime.block_on(self.sink.open(connection))?;
        Ok(StoreFile { file, runtime: Arc::clone(&self.runtime) })
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.runtime.block_on(self.sink.mark(connection))
    }

    fn blocks(&self) -> bool {
        true
    }

    fn stopping(&self) {
        self.close();
    }
}

impl SinkFile for StoreFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.try_write(bytes) {
            all if all == bytes.len() => Ok(()),
            stored => self.runtime.block_on(self.file.store(&bytes[stored..])),
        }
    }

    fn commit(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.file.commit())
    }

    fn abort(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.file.abort())
    }
}

impl Drop for StoreFile {
    /// Waits until an unfinished upload is aborted.
    fn drop(&mut self) {
        if let Err(error) = self.runtime.block_on(self.file.discard()) {
            log::error!("cannot abort an upload: {error}");
        }
    }
}

#[cfg(test)]
impl StoreSink {
    pub(crate) fn shared(&self) -> &Arc<crate::shared::Shared> {
        self.sink.shared()
    }

    pub(crate) fn asynchronous(&self) -> &AsyncStoreSink {
        &self.sink
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}
