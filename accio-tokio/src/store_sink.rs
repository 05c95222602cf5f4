//! A sink for any object store.

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;

use accio_proto::{Connection, ERROR_MARKER, OpenError};
use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use crate::sink::{AsyncFileSink, AsyncSinkFile};

/// Size of the first parts of an upload (8 MiB): stores require at least 5 MiB.
const PART: usize = 8 << 20;

/// Number of parts after which their size doubles: stores allow 10,000, which then suffice for
/// 7.8 TiB.
const SAME: usize = 1000;

/// Minimum size of a piece of a part (64 KiB): smaller ones are joined by copying, because each piece
/// has a cost of its own.
const PIECE: usize = 64 << 10;

/// Returns the size of part `index`, counted from 0.
fn part_size(index: usize) -> usize {
    PART << (index / SAME).min(9)
}

/// Stores connection N as the object `PREFIX/N.file`, in any store of the crate
/// [`object_store`].
///
/// Content of less than 8 MiB is one put; larger content is uploaded in parts, one at a time, and
/// shows only once the upload is complete. An existing object is replaced. A connection holds at
/// most about 9 MiB of memory, so a server must limit its connections; twice that for each doubling of
/// its size after 7.8 GiB, because stores allow 10,000 parts. `accio-store` has sinks with a memory
/// limit for all connections together, which never replace an object.
///
/// If the process is killed or the runtime dropped during a large upload, the store may keep its parts
/// until a lifecycle rule removes them.
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
    /// Small pieces that follow `held`.
    small: BytesMut,
    /// Number of bytes in both.
    count: usize,
    upload: Option<Box<dyn MultipartUpload>>,
    /// Number of parts sent.
    parts: usize,
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
            small: BytesMut::new(),
            count: 0,
            upload: None,
            parts: 0,
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
        self.join_small();
        self.count = 0;
        self.held.drain(..).collect()
    }

    /// Joins the small pieces into one.
    fn join_small(&mut self) {
        if !self.small.is_empty() {
            self.held.push(mem::take(&mut self.small).freeze());
        }
    }

    /// Holds further bytes.
    fn hold(&mut self, bytes: Bytes) {
        self.count += bytes.len();
        if bytes.len() < PIECE {
            self.small.extend_from_slice(&bytes);
            if self.small.len() >= PIECE {
                self.join_small();
            }
        } else {
            self.join_small();
            self.held.push(bytes);
        }
    }

    /// Sends the held bytes as a part.
    async fn send(&mut self) -> io::Result<()> {
        let payload = self.take();
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => self.upload.insert(self.store.put_multipart(&self.path).await?),
        };
        upload.put_part(payload).await?;
        self.parts += 1;
        Ok(())
    }
}

impl AsyncSinkFile for ObjectStoreFile {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.hold(bytes);
        // All parts but the last must have the same size at some stores, so a part may end within
        // a buffer.
        while self.count >= part_size(self.parts) {
            self.join_small();
            let mut beyond = self.count - part_size(self.parts);
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

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn many_small_pieces_become_few() {
        let sink = ObjectStoreSink::new(Arc::new(InMemory::new()), "p");
        let mut file = sink.open(&Connection::new(1)).await.unwrap();
        for _ in 0..1_000_000 {
            file.write(Bytes::from_static(b"x")).await.unwrap();
        }
        assert!(file.held.len() <= 1_000_000 / PIECE + 1, "{} pieces", file.held.len());
        file.commit().await.unwrap();
        let stored = sink.store.get(&Path::from("p/1.file")).await.unwrap();
        assert_eq!(stored.bytes().await.unwrap(), vec![b'x'; 1_000_000]);
    }

    #[test]
    fn ten_thousand_parts_suffice_for_the_largest_objects() {
        let all: u64 = (0..10_000).map(|index| part_size(index) as u64).sum();
        assert!(all > 5 << 40, "{all}");
        assert_eq!((part_size(0), part_size(999), part_size(1000)), (PART, PART, 2 * PART));
    }
}
