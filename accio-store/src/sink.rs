//! The sink: opens a file for each connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use accio_proto::{Connection, OpenError};
use accio_tokio::AsyncFileSink;
use futures_util::TryStreamExt;
use object_store::path::Path;

use crate::file::AsyncStoreFile;
use crate::shared::{LAST_CLEANUP, Shared, store_error};

/// An asynchronous sink that stores files in an object store, created by
/// [`StoreOptions::open_async`](crate::StoreOptions::open_async). No connection needs a thread.
///
/// Clones share the store and the memory budget. A connection that waits for memory holds up to
/// 80 KiB in addition, or about 1 MiB with TLS or digests.
#[derive(Debug, Clone)]
pub struct AsyncStoreSink {
    shared: Arc<Shared>,
}

impl AsyncStoreSink {
    /// How long aborting unfinished uploads may take after [`close`](Self::close).
    pub const CLOSE_TIMEOUT: Duration = LAST_CLEANUP;

    pub(crate) fn new(shared: Shared) -> Self {
        AsyncStoreSink { shared: Arc::new(shared) }
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Returns the address of the store, without a password.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// Returns the path of connection `id`'s object in the store: `PREFIX/NODE/N.file`.
    pub fn path(&self, id: u64) -> String {
        self.shared.path(id).to_string()
    }

    /// Returns the highest number of this node's objects in the store. Dropping the future has no other
    /// effect than to end the request.
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot list them.
    pub async fn highest(&self) -> io::Result<Option<u64>> {
        self.shared.highest().await
    }

    /// Makes every current and future wait for memory or for the store fail.
    ///
    /// The server calls this when it stops, so that a store that does not answer delays the end of
    /// each upload by at most [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT) instead of a minute.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl AsyncFileSink for AsyncStoreSink {
    type File = AsyncStoreFile;

    async fn open(&self, connection: &Connection) -> Result<AsyncStoreFile, OpenError> {
        Ok(AsyncStoreFile::new(&self.shared, connection.id))
    }

    async fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.shared.mark(connection.id).await
    }

    fn stopping(&self) {
        self.close();
    }
}

impl Shared {
    /// Returns the highest number among this node's objects.
    async fn highest(&self) -> io::Result<Option<u64>> {
        let objects = self.store.list(Some(&self.root));
        let highest = objects.try_fold(None, |highest: Option<u64>, object| {
            std::future::ready(Ok(highest.max(self.number(&object.location))))
        });
        highest.await.map_err(|error| store_error(&error))
    }

    /// Parses the number in an object name of this node: no directory, sign or leading zero.
    fn number(&self, path: &Path) -> Option<u64> {
        let mut steps = path.prefix_match(&self.root)?;
        let name = steps.next().filter(|_| steps.next().is_none())?;
        let id = name.as_ref().strip_suffix(".file")?;
        id.parse().ok().filter(|number: &u64| number.to_string() == id)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutPayload};

    use crate::tests::{self, CLOUD};

    use super::*;

    #[test]
    fn highest_considers_only_names_that_a_receiver_writes() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = InMemory::new();
        let root = Path::from("p/node");
        let names =
            ["7.file", "12.file", "013.file", "+14.file", "15.files", "s/16.file", "17.file/x"];
        for name in names {
            let path = Path::from(format!("{root}/{name}"));
            runtime.block_on(store.put(&path, PutPayload::new())).unwrap();
        }
        let other = Path::from("p/node2/99.file");
        runtime.block_on(store.put(&other, PutPayload::new())).unwrap();
        let sink = tests::sink(Arc::new(store), CLOUD, 0);
        assert_eq!(sink.highest().unwrap(), Some(12));
        let empty = tests::sink(Arc::new(InMemory::new()), CLOUD, 0);
        assert_eq!(empty.highest().unwrap(), None);
    }
}
