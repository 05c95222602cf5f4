//! A sink for any object store.

use std::fmt;
use std::io;
use std::sync::Arc;

use accio_proto::{Connection, ERROR_MARKER, OpenError};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use crate::sink::{AsyncFileSink, AsyncSinkFile};

/// Size of a part of an upload (8 MiB): stores require at least 5 MiB, and allow 10,000 parts.
const PART: usize = 8 << 20;

/// Stores connection N as the object `PREFIX/N.file`, in any store of the crate
/// [`object_store`].
///
/// Content of less than 8 MiB is one put; larger content is uploaded in parts, one at a time, and
/// shows only once the upload is complete. An existing object is replaced. A connection holds at
/// most about 9 MiB of memory, so a server must limit its connections. `accio-store` has a blocking
/// sink with a memory limit for all connections together, which never replaces an object.
///
/// If the process is killed during a large upload, the store may keep its parts until a lifecycle
/// rule removes them.
#[derive(Clone)]
pub struct ObjectStoreSink {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// The content of one connection, on its way to the store.
pub struct ObjectStoreFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    held: Vec<Bytes>,
    /// Number of bytes in `held`.
    count: usize,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl ObjectStoreSink {
    /// Returns a sink for the objects below a prefix.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: impl Into<Path>) -> Self {
        ObjectStoreSink { store, prefix: prefix.into() }
    }

    fn path(&self, connection: &Connection) -> Path {
        self.prefix.clone().join(format!("{}.file", connection.id))
    }
}

impl AsyncFileSink for ObjectStoreSink {
    type File = ObjectStoreFile;

    async fn open(&self, connection: &Connection) -> Result<ObjectStoreFile, OpenError> {
        Ok(ObjectStoreFile {
            store: Arc::clone(&self.store),
            path: self.path(connection),
            held: Vec::new(),
            count: 0,
            upload: None,
        })
    }

    async fn mark(&self, connection: &Connection) -> io::Result<()> {
        let marker = PutPayload::from_static(ERROR_MARKER);
        self.store.put(&self.path(connection), marker).await?;
        Ok(())
    }
}

impl ObjectStoreFile {
    /// Returns the held bytes.
    fn take(&mut self) -> PutPayload {
        self.count = 0;
        self.held.drain(..).collect()
    }

    /// Sends the held bytes as a part.
    async fn send(&mut self) -> io::Result<()> {
        let payload = self.take();
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(self.store.put_multipart(&self.path).await?),
        };
        Ok(upload.put_part(payload).await?)
    }
}

impl AsyncSinkFile for ObjectStoreFile {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.count += bytes.len();
        self.held.push(bytes);
        // All parts but the last must have the same size at some stores, so a part may end within
        // a buffer.
        while self.count >= PART {
            let mut beyond = self.count - PART;
            let mut rest = Vec::new();
            while beyond > 0
                && let Some(mut last) = self.held.pop()
            {
                let keep = last.len().saturating_sub(beyond);
                beyond -= last.len() - keep;
                rest.push(last.split_off(keep));
                if !last.is_empty() {
                    self.held.push(last);
                }
            }
            rest.reverse();
            self.send().await?;
            self.count = rest.iter().map(Bytes::len).sum();
            self.held = rest;
        }
        Ok(())
    }

    async fn commit(&mut self) -> io::Result<()> {
        if self.upload.is_none() {
            let payload = self.take();
            self.store.put(&self.path, payload).await?;
            return Ok(());
        }
        if self.count > 0 {
            self.send().await?;
        }
        if let Some(upload) = &mut self.upload {
            upload.complete().await?;
        }
        self.upload = None;
        Ok(())
    }

    async fn abort(&mut self) -> io::Result<()> {
        self.take();
        if let Some(mut upload) = self.upload.take() {
            upload.abort().await?;
        }
        self.store.put(&self.path, PutPayload::from_static(ERROR_MARKER)).await?;
        Ok(())
    }
}

impl fmt::Debug for ObjectStoreSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreSink")
            .field("store", &format_args!("{}", self.store))
            .field("prefix", &self.prefix)
            .finish()
    }
}

impl fmt::Debug for ObjectStoreFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreFile").field("path", &self.path).finish_non_exhaustive()
    }
}
