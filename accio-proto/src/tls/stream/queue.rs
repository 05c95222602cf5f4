//! A queue of bytes.

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
            self.buffer.resize(self.end + size, 0);
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

    /// Returns free space to the system.
    pub(super) fn shrink(&mut self) {
        self.move_to_front();
        self.buffer.truncate(self.end);
        self.buffer.shrink_to_fit();
    }
}
