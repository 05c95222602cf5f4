//! One connection's object, from its first byte to commit or abort.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;

use accio_proto::ERROR_MARKER;
use accio_tokio::AsyncSinkFile;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::buffer_pool::Buffer;
use crate::conditional_put;
use crate::memory_budget::{Claim, Closed, Growth};
use crate::part_size::{self, MOST_PARTS, PART};
use crate::program_log as log;
use crate::shared::{Shared, stopping, store_error};

/// Maximum number of parts of one upload that are in flight while the next one is filled.
const MAX_IN_FLIGHT: usize = 3;

/// The content of one connection, on its way to the store.
#[derive(Debug)]
pub struct AsyncStoreFile {
    shared: Arc<Shared>,
    id: u64,
    path: Path,
    claim: Claim,
    /// The beginning of the next part: full buffers, and the one being filled.
    pieces: Vec<Bytes>,
    filling: Buffer,
    /// Number of bytes in `pieces` and `filling`.
    held: usize,
    upload: Option<Upload>,
}

/// A multipart upload.
#[derive(Debug)]
struct Upload {
    multipart: Box<dyn MultipartUpload>,
    /// Parts in flight with their sizes.
    in_flight: VecDeque<(JoinHandle<object_store::Result<()>>, usize)>,
    parts: usize,
    bytes: u64,
}

impl AsyncStoreFile {
    pub(crate) fn new(shared: &Arc<Shared>, id: u64) -> Self {
        AsyncStoreFile {
            path: shared.path(id),
            claim: Claim::new(&shared.budget),
            filling: Buffer::none(shared.budget.pool()),
            shared: Arc::clone(shared),
            id,
            pieces: Vec::new(),
            held: 0,
            upload: None,
        }
    }

    /// Returns whether the held bytes are enough for the next part.
    fn is_part(&self) -> bool {
        let index = self.upload.as_ref().map_or(0, |upload| upload.parts);
        self.held >= part_size::size(index, self.shared.budget.main())
    }

    /// Makes room for more content; sends the held bytes if there are enough for a part.
    async fn make_room(&mut self) -> io::Result<()> {
        loop {
            // Report a failed part before waiting for its successors.
            let room = match self.is_part() {
                true => None,
                false => self.claim.grow().await.map_err(|Closed| stopping())?,
            };
            match room {
                Some(room) => {
                    self.fill_next(room);
                    return Ok(());
                }
                None => self.send().await?,
            }
        }
    }

    /// Continues with a buffer of `room` bytes.
    fn fill_next(&mut self, room: usize) {
        let filled = mem::replace(&mut self.filling, self.claim.buffer(room));
        if !filled.is_empty() {
            self.pieces.push(filled.freeze());
        }
    }

    /// Stores all of the bytes.
    pub(crate) async fn store(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            bytes = &bytes[self.try_write(bytes)..];
            if bytes.is_empty() {
                return Ok(());
            }
            self.make_room().await?;
        }
    }

    /// Sends the held bytes as the next part.
    async fn send(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        if !shared.capabilities.multipart {
            return Err(io::Error::other(format!(
                "larger than {PART} bytes: this store does not support uploads in parts"
            )));
        }
        let upload = match &mut self.upload {
            Some(upload) => upload,
            None => {
                let begun = shared.wait(shared.begin(&self.path)).await?;
                self.upload.insert(begun)
            }
        };
        if upload.parts == MOST_PARTS {
            return Err(io::Error::other(format!(
                "larger than {MOST_PARTS} parts: a larger memory limit allows larger parts"
            )));
        }
        // Otherwise one upload could use all the memory.
        while upload.must_wait(self.held, shared.budget.main()) {
            shared.wait(upload.wait_for_oldest()).await?;
        }
        let payload = take(&shared, &mut self.pieces, &mut self.filling);
        upload.parts += 1;
        upload.bytes += self.held as u64;
        let size = mem::take(&mut self.held);
        let leaving = self.claim.leave();
        let part = upload.multipart.put_part(payload);
        let in_flight = tokio::spawn(async move {
            // The memory belongs to the part until the part has been sent.
            let result = part.await;
            drop(leaving);
            result
        });
        upload.in_flight.push_back((in_flight, size));
        Ok(())
    }

    /// Drops the held bytes and aborts the upload at the store.
    pub(crate) async fn discard(&mut self) -> io::Result<()> {
        drop(take(&self.shared, &mut self.pieces, &mut self.filling));
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        self.shared.tidy(async { upload.abort().await }).await
    }

    /// Returns the memory to the budget, because the file object exists until the client is
    /// notified.
    fn release(&mut self) {
        drop(self.claim.leave());
    }

    async fn keep(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        if self.upload.is_none() {
            let payload = take(&shared, &mut self.pieces, &mut self.filling);
            let put = shared.create(&self.path, payload, conditional_put::CONTENT);
            return shared.wait(put).await;
        }
        if self.held > 0 {
            self.send().await?;
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let path = &self.path;
        let complete = async {
            while !upload.in_flight.is_empty() {
                upload.wait_for_oldest().await?;
            }
            if shared.capabilities.conditional && shared.capabilities.parts_outlive_puts {
                // Reserve the name with a marker, which remains until the upload is complete.
                shared
                    .create(path, PutPayload::from_static(ERROR_MARKER), conditional_put::ERROR)
                    .await?;
            } else {
                // Do not reserve the name: it would protect nothing, or even do harm, because on
                // Garage and Azure a put ends all earlier uploads with the same name.
                shared.vacant(path).await?;
            }
            match upload.multipart.complete().await {
                Ok(_) => Ok(()),
                // The upload is complete, but the response was lost.
                Err(_) if shared.arrived(path, upload.bytes).await => Ok(()),
                Err(error) => Err(store_error(&error)),
            }
        };
        shared.wait(complete).await?;
        // The upload is complete, so it need not be aborted.
        self.upload = None;
        Ok(())
    }
}

impl AsyncSinkFile for AsyncStoreFile {
    /// A connection that waits for memory then holds little more than its first read.
    const WRITE: usize = 16 << 10;

    fn try_write(&mut self, bytes: &[u8]) -> usize {
        let mut stored = 0;
        while stored < bytes.len() {
            if self.filling.is_full() {
                if self.is_part() {
                    break;
                }
                let Ok(Growth::Bytes(room)) = self.claim.try_grow() else { break };
                self.fill_next(room);
            }
            let count = self.filling.fill(&bytes[stored..]);
            self.held += count;
            stored += count;
        }
        stored
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        self.store(&bytes).await
    }

    async fn commit(&mut self) -> io::Result<()> {
        let kept = self.keep().await;
        if kept.is_err()
            && let Err(error) = self.discard().await
        {
            log::error!("connection {}: cannot abort its upload: {error}", self.id);
        }
        self.release();
        kept
    }

    async fn abort(&mut self) -> io::Result<()> {
        let discarded = self.discard().await;
        self.release();
        // The marker comes first, because readers of the store see it.
        self.shared.mark(self.id).await?;
        if let Err(error) = discarded {
            log::error!("connection {}: cannot abort its upload: {error}", self.id);
        }
        Ok(())
    }
}

impl Drop for AsyncStoreFile {
    /// Aborts the upload in a task of the current runtime.
    fn drop(&mut self) {
        // Commit and abort take the upload, so this happens only after a panic.
        let Some(mut upload) = self.upload.take() else { return };
        let (shared, id) = (Arc::clone(&self.shared), self.id);
        let abort = async move {
            if let Err(error) = shared.tidy(async { upload.abort().await }).await {
                log::error!("connection {id}: cannot abort its upload: {error}");
            }
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(abort)),
            Err(error) => log::error!("connection {id}: cannot abort its upload: {error}"),
        }
    }
}

impl Upload {
    /// Returns whether the next part of `size` bytes must wait for one in flight.
    fn must_wait(&self, size: usize, memory: usize) -> bool {
        let bytes: usize = self.in_flight.iter().map(|(_, size)| size).sum();
        self.in_flight.len() >= MAX_IN_FLIGHT
            || (!self.in_flight.is_empty() && bytes + size > memory / 2)
    }

    /// Waits for the oldest part in flight.
    async fn wait_for_oldest(&mut self) -> io::Result<()> {
        let Some((part, _)) = self.in_flight.front_mut() else { return Ok(()) };
        let result = part.await;
        self.in_flight.pop_front();
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(store_error(&error)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    async fn abort(&mut self) -> io::Result<()> {
        // A part that arrives after the abort could stay in the store forever.
        for (part, _) in &self.in_flight {
            part.abort();
        }
        for (part, _) in self.in_flight.drain(..) {
            let _ = part.await;
        }
        match self.multipart.abort().await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store_error(&error)),
        }
    }
}

impl Shared {
    async fn begin(&self, path: &Path) -> io::Result<Upload> {
        // Fail now rather than after gigabytes have been sent.
        self.vacant(path).await?;
        let options = PutMultipartOptions {
            attributes: self.note(conditional_put::CONTENT),
            ..PutMultipartOptions::default()
        };
        let multipart = self.store.put_multipart_opts(path, options).await;
        let multipart = multipart.map_err(|error| store_error(&error))?;
        Ok(Upload { multipart, in_flight: VecDeque::new(), parts: 0, bytes: 0 })
    }
}

/// Returns the held bytes as a payload, without copying them.
fn take(shared: &Shared, pieces: &mut Vec<Bytes>, filling: &mut Buffer) -> PutPayload {
    let last = mem::replace(filling, Buffer::none(shared.budget.pool()));
    let pieces = mem::take(pieces);
    pieces.into_iter().chain((!last.is_empty()).then(|| last.freeze())).collect()
}
