//! The digest of a session's content, which several threads may receive in turns.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::hasher::Hasher;

/// Computes the digest of a session's content. A thread may hash the bytes that it has received
/// while another one receives the next bytes; all are hashed in the order of the content.
#[derive(Debug, Clone)]
pub(crate) struct ContentHasher(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when `hashed` has changed.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    hasher: Hasher,
    /// Number of bytes hashed.
    hashed: u64,
}

impl ContentHasher {
    #[cfg(feature = "digest")]
    pub(crate) fn new(hasher: Hasher) -> Self {
        let state = Mutex::new(State { hasher, hashed: 0 });
        ContentHasher(Arc::new(Shared { state, changed: Condvar::new() }))
    }

    /// Adds the bytes at `offset` of the content. Waits until all bytes before them are hashed.
    pub(crate) fn update(&self, offset: u64, bytes: &[u8]) {
        let mut state = self.wait_for(offset);
        state.hasher.update(bytes);
        state.hashed += bytes.len() as u64;
        self.0.changed.notify_all();
    }

    /// Returns the first `count` bytes of `buffer`, those at `offset` of the content, as bytes to be
    /// hashed later. The thread that holds them must not wait for another one before it hashes them.
    pub(crate) fn later(&self, offset: u64, buffer: Vec<u8>, count: usize) -> Pending {
        Pending { hasher: self.clone(), offset, buffer, count }
    }

    /// Returns the state of the digest of content with this length, once all of it is hashed.
    pub(crate) fn complete(&self, length: u64) -> Hasher {
        self.wait_for(length).hasher.clone()
    }

    fn wait_for(&self, offset: u64) -> MutexGuard<'_, State> {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_early = |state: &mut State| state.hashed < offset;
        self.0.changed.wait_while(state, is_early).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Received bytes that are not hashed yet. They are hashed on drop at the latest.
#[derive(Debug)]
pub(crate) struct Pending {
    hasher: ContentHasher,
    offset: u64,
    buffer: Vec<u8>,
    count: usize,
}

impl Pending {
    /// Hashes the bytes and returns the buffer.
    pub(crate) fn hash(mut self) -> Vec<u8> {
        self.update();
        mem::take(&mut self.buffer)
    }

    fn update(&mut self) {
        let count = mem::take(&mut self.count);
        if count > 0 {
            self.hasher.update(self.offset, &self.buffer[..count]);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.update();
    }
}

#[cfg(all(test, feature = "digest"))]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::digest::DigestAlgorithm;

    fn digest_of(content: &[u8]) -> crate::Digest {
        let mut hasher = Hasher::new(DigestAlgorithm::Blake3);
        hasher.update(content);
        hasher.finish()
    }

    #[test]
    fn hashes_in_the_order_of_the_content_whichever_thread_is_faster() {
        let content: Vec<u8> = (0..100_000_u32).map(|index| (index % 251) as u8).collect();
        let hasher = ContentHasher::new(Hasher::new(DigestAlgorithm::Blake3));
        let (send, pieces) = channel();
        let mut offset = 0;
        for piece in content.chunks(777) {
            send.send(hasher.later(offset, piece.to_vec(), piece.len())).unwrap();
            offset += piece.len() as u64;
        }
        drop(send);
        let mut pieces: Vec<Pending> = pieces.iter().collect();
        thread::scope(|scope| {
            let first = pieces.drain(..1).next();
            for piece in pieces.into_iter().rev() {
                scope.spawn(|| piece.hash());
            }
            // Dropping bytes hashes them, too.
            drop(first);
            assert_eq!(hasher.complete(100_000).finish(), digest_of(&content));
        });
    }

    #[test]
    fn returns_the_buffer_after_its_bytes_are_hashed() {
        let hasher = ContentHasher::new(Hasher::new(DigestAlgorithm::Blake3));
        let buffer = hasher.later(0, b"content and other bytes".to_vec(), 7).hash();
        assert_eq!(buffer.len(), 23);
        assert_eq!(hasher.complete(7).finish(), digest_of(b"content"));
    }
}
