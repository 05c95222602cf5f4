//! A pool of reusable buffers for uploads.
//!
//! The C library keeps freed buffers of this size in the heaps of all threads; with many uploads,
//! that adds half of the memory in use. Large buffers, which make up nearly all of the memory, are
//! therefore kept in this pool.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Idle buffers of one size, and the total size of all buffers.
#[derive(Debug)]
pub(crate) struct BufferPool {
    /// Size of the buffers that are kept, in bytes.
    size: usize,
    /// Limit for idle and used buffers together, in bytes.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Vec<u8>>,
    /// Size of all buffers, used and idle, in bytes.
    all: usize,
}

/// A buffer and its content; returned to the pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Capacity in bytes.
    room: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// Creates a pool that keeps buffers of `size` bytes while all buffers together are at most `most`
    /// bytes.
    pub(crate) fn new(size: usize, most: usize) -> Arc<Self> {
        Arc::new(BufferPool { size, most, state: Mutex::default() })
    }

    /// Returns an empty buffer of `size` bytes.
    pub(crate) fn get(self: &Arc<Self>, room: usize) -> Buffer {
        let mut state = self.lock();
        let idle = if room == self.size { state.idle.pop() } else { None };
        let mut dropped = Vec::new();
        if idle.is_none() {
            state.all += room;
            // Free idle buffers first.
            while state.all > self.most {
                let Some(buffer) = state.idle.pop() else { break };
                state.all -= self.size;
                dropped.push(buffer);
            }
        }
        drop(state);
        drop(dropped);
        let bytes = idle.unwrap_or_else(|| Vec::with_capacity(room));
        Buffer { bytes, room, pool: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// Creates a buffer with a capacity of 0.
    pub(crate) fn none(pool: &Arc<BufferPool>) -> Self {
        Buffer { bytes: Vec::new(), room: 0, pool: Arc::clone(pool) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() == self.room
    }

    /// Appends as many bytes as fit; returns their number.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..count]);
        count
    }

    /// Returns the bytes for sending; dropping the last reference returns the buffer to the pool.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.room == 0 {
            return;
        }
        let mut bytes = mem::take(&mut self.bytes);
        let mut state = self.pool.lock();
        if self.room == self.pool.size && state.all <= self.pool.most {
            bytes.clear();
            state.idle.push(bytes);
        } else {
            state.all -= self.room;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(pool: &BufferPool) -> usize {
        pool.lock().idle.len()
    }

    #[test]
    fn reuses_large_buffers_once_their_bytes_are_dropped() {
        let pool = BufferPool::new(8, 32);
        let mut buffer = pool.get(8);
        assert_eq!(buffer.fill(b"123456789"), 8);
        assert!(buffer.is_full());
        let bytes = buffer.freeze();
        let part = bytes.slice(2..4);
        drop(bytes);
        assert_eq!((&part[..], idle(&pool)), (&b"34"[..], 0));
        drop(part);
        assert_eq!((idle(&pool), pool.lock().all), (1, 8));
        assert!(pool.get(8).is_empty());
        assert_eq!(idle(&pool), 1, "the same buffer is reused");
    }

    #[test]
    fn frees_small_buffers_and_frees_idle_ones_for_them() {
        let pool = BufferPool::new(8, 16);
        drop((pool.get(8), pool.get(8)));
        assert_eq!(idle(&pool), 2);
        let small = pool.get(4);
        assert_eq!((idle(&pool), pool.lock().all), (1, 12));
        drop(small);
        drop(Buffer::none(&pool));
        assert_eq!((idle(&pool), pool.lock().all), (1, 8));
    }
}
