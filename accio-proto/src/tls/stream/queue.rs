//! A queue of bytes.

/// Bytes that enter at the end of a buffer and leave at its front.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buffer: Vec<u8>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// What a call on a queue's free space did.
pub(super) enum Filled {
    Bytes(usize),
    /// It needs so many bytes of space.
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

    /// Starts at the front again when it is empty.
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

    /// Free space of at least `size` bytes; what is filled is added to `end`.
    pub(super) fn room(&mut self, size: usize) -> &mut [u8] {
        self.move_to_front();
        if self.buffer.len() < self.end + size {
            self.buffer.resize(self.end + size, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// Lets `fill` write to free space of `size` bytes or, if it asks for more, of as many.
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

    /// Gives free space back to the system.
    pub(super) fn shrink(&mut self) {
        self.move_to_front();
        self.buffer.truncate(self.end);
        self.buffer.shrink_to_fit();
    }
}
