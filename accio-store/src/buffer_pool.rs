//! Buffers of uploads, reused.
//!
//! The C library keeps freed buffers of this size in the heaps of all threads: with many uploads that is
//! half as much again as is in use. So large buffers, nearly all of the memory, are not freed but kept
//! here for the next upload.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Idle buffers of one size, and the total size of all buffers.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// Size of the buffers that are kept (bytes).
    size: usize,
    /// Limit for idle and used buffers together (bytes).
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Vec<u8>>,
    /// Bytes in use and idle.
    all: usize,
}

/// A buffer and the bytes in it; returned to the pool when dropped.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Vec<u8>,
    /// Requested size (bytes).
    room: usize,
    pieces: Arc<Pieces>,
}

impl Pieces {
    /// Creates a pool that keeps buffers of `size` bytes while all buffers together are at most `most` bytes.
    pub(crate) fn new(size: usize, most: usize) -> Arc<Self> {
        Arc::new(Pieces { size, most, state: Mutex::default() })
    }

    /// Returns an empty buffer of `size` bytes.
    pub(crate) fn get(self: &Arc<Self>, room: usize) -> Piece {
        let mut state = self.lock();
        let idle = if room == self.size { state.idle.pop() } else { None };
        let mut dropped = Vec::new();
        if idle.is_none() {
            state.all += room;
            // Idle buffers are freed first.
            while state.all > self.most {
                let Some(piece) = state.idle.pop() else { break };
                state.all -= self.size;
                dropped.push(piece);
            }
        }
        drop(state);
        drop(dropped);
        let bytes = idle.unwrap_or_else(|| Vec::with_capacity(room));
        Piece { bytes, room, pieces: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    /// Creates a buffer of size 0.
    pub(crate) fn none(pieces: &Arc<Pieces>) -> Self {
        Piece { bytes: Vec::new(), room: 0, pieces: Arc::clone(pieces) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() == self.room
    }

    /// Appends as many bytes as fit; returns how many.
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

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.room == 0 {
            return;
        }
        let mut bytes = mem::take(&mut self.bytes);
        let mut state = self.pieces.lock();
        if self.room == self.pieces.size && state.all <= self.pieces.most {
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

    fn idle(pieces: &Pieces) -> usize {
        pieces.lock().idle.len()
    }

    #[test]
    fn large_ones_come_back_empty_once_their_bytes_are_dropped() {
        let pieces = Pieces::new(8, 32);
        let mut piece = pieces.get(8);
        assert_eq!(piece.fill(b"123456789"), 8);
        assert!(piece.is_full());
        let bytes = piece.freeze();
        let part = bytes.slice(2..4);
        drop(bytes);
        assert_eq!((&part[..], idle(&pieces)), (&b"34"[..], 0));
        drop(part);
        assert_eq!((idle(&pieces), pieces.lock().all), (1, 8));
        assert!(pieces.get(8).is_empty());
        assert_eq!(idle(&pieces), 1, "the same one again");
    }

    #[test]
    fn small_ones_are_freed_and_idle_ones_make_way_for_them() {
        let pieces = Pieces::new(8, 16);
        drop((pieces.get(8), pieces.get(8)));
        assert_eq!(idle(&pieces), 2);
        let small = pieces.get(4);
        assert_eq!((idle(&pieces), pieces.lock().all), (1, 12));
        drop(small);
        drop(Piece::none(&pieces));
        assert_eq!((idle(&pieces), pieces.lock().all), (1, 8));
    }
}
