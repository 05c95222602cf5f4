//! A queue of bytes.

use std::cell::Cell;
use std::mem;

/// Minimum size of a buffer that is kept for the thread's next connection (64 KiB): to get one from
/// the system, which fills it with zeros, costs more than to decrypt its content.
const SPARE_MIN: usize = 64 << 10;

thread_local! {
    /// A large buffer that no queue uses. Connections need one only while they receive, so those of
    /// a thread share it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A queue of bytes: appended at the end, removed at the front.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buffer: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The result of a call that writes into the free space of a queue.
pub(super) enum Filled {
    Bytes(usize),
    /// The number of bytes of space that the call needs.
    Needs(usize),
}

impl Queue {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Resets an empty queue to its start.
    pub(super) fn tidy(&mut self) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }

    /// Returns free space of at least `size` bytes. The caller adds the number of bytes written to
    /// `end`.
    pub(super) fn room(&mut self, size: usize) -> &mut [u8] {
        self.move_to_front();
        if self.buffer.len() < self.end + size {
            if size >= SPARE_MIN {
                self.replace_by_spare();
            }
            let size = self.buffer.len().max(self.end + size);
            self.buffer.resize(size, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Calls `fill` with free space of `size` bytes, and again with more if it needs that.
    pub(super) fn fill(
        &mut self,
        mut size: usize,
        mut fill: impl FnMut(&mut [u8]) -> Result<Filled, rustls::Error>,
    ) -> Result<(), rustls::Error> {
        loop {
            match fill(self.room(size))? {
                Filled::Bytes(count) => {
                    self.end += count;
                    return Ok(());
                }
                Filled::Needs(more) => size = more,
            }
        }
    }

    fn move_to_front(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Gives up free space. A large buffer is kept for the thread's next connection.
    pub(super) fn shrink(&mut self) {
        self.move_to_front();
        if self.buffer.len() >= SPARE_MIN {
            let rest = self.bytes().to_vec();
            let _ = SPARE.try_with(|spare| spare.set(mem::replace(&mut self.buffer, rest)));
        }
        self.buffer.truncate(self.end);
        self.buffer.shrink_to_fit();
    }

    /// Moves the bytes, which are at the front, to the spare buffer, if that is larger.
    fn replace_by_spare(&mut self) {
        let mut spare = SPARE.try_with(Cell::take).unwrap_or_default();
        if spare.len() > self.buffer.len() {
            spare[..self.end].copy_from_slice(self.bytes());
            self.buffer = spare;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue, bytes: &[u8], room: usize) {
        queue.room(room)[..bytes.len()].copy_from_slice(bytes);
        queue.end += bytes.len();
    }

    #[test]
    fn keeps_its_bytes_when_it_changes_buffers() {
        let mut queue = Queue::default();
        push(&mut queue, b"one", 4 << 10);
        push(&mut queue, b"two", 2 * SPARE_MIN);
        queue.start += 1;
        queue.shrink();
        assert_eq!((queue.bytes(), queue.buffer.capacity()), (&b"netwo"[..], 5));
        push(&mut queue, b"three", 2 * SPARE_MIN);
        assert_eq!(queue.bytes(), b"netwothree");
    }

    #[test]
    fn the_queues_of_a_thread_share_a_large_buffer() {
        let mut first = Queue::default();
        let address = first.room(2 * SPARE_MIN).as_ptr();
        first.shrink();
        assert_eq!(first.buffer.capacity(), 0);
        let mut second = Queue::default();
        assert_eq!(second.room(2 * SPARE_MIN).as_ptr(), address);
        // The buffer is in use, so the first queue gets another one.
        assert_ne!(first.room(2 * SPARE_MIN).as_ptr(), address);
    }
}
