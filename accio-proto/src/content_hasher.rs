//! The digest of a session's content, computed while it arrives.
//!
//! Content is hashed from the memory that it was received into or, once the session is bulk, read
//! back from its file, where it is by then without a copy through the process. Both happen right
//! after the bytes were received, by the same thread, whose core has them in its cache. To read them
//! later, or on another core, takes longer than to hash them with BLAKE3.

use std::io;
use std::os::fd::OwnedFd;

use crate::digest::Digest;
use crate::hasher::Hasher;
use crate::sys::file as calls;
use crate::tuning::{READ_BACK_MIN, READ_BACK_PIECE};

/// Computes the digest of a session's content, in the order of the content.
#[derive(Debug)]
pub(crate) struct ContentHasher {
    hasher: Hasher,
    source: Source,
}

/// Where the next large part of the content is hashed from.
#[derive(Debug, Default)]
enum Source {
    /// From memory, until there is enough content to ask the file.
    #[default]
    Undecided,
    Memory,
    File(OwnedFd),
}

impl ContentHasher {
    #[cfg(feature = "digest")]
    pub(crate) fn new(hasher: Hasher) -> Self {
        ContentHasher { hasher, source: Source::default() }
    }

    /// Adds the next bytes of the content from memory.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Begins to read content back, if `length` bytes are enough for that and `open`, which is called
    /// at most once, returns the file. Returns whether content can be read back from now on.
    pub(crate) fn begin_reading_back(
        &mut self,
        length: u64,
        open: impl FnOnce() -> Option<OwnedFd>,
    ) -> bool {
        if matches!(self.source, Source::Undecided) && length >= READ_BACK_MIN {
            // Set before the call, which may panic.
            self.source = Source::Memory;
            if let Some(file) = open() {
                self.source = Source::File(file);
            }
        }
        matches!(self.source, Source::File(_))
    }

    /// Adds the next `count` bytes of the content, which are at `offset` of the file. The buffer, of any
    /// size, is used to read them.
    ///
    /// # Errors
    ///
    /// Returns the error of reading, and [`io::ErrorKind::UnexpectedEof`] if the file is shorter.
    pub(crate) fn read_back(
        &mut self,
        mut offset: u64,
        count: usize,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Source::File(file) = &self.source else {
            return Err(io::Error::other("the content is not read back"));
        };
        if buffer.len() < READ_BACK_PIECE {
            buffer.resize(READ_BACK_PIECE, 0);
        }
        let mut left = count;
        while left > 0 {
            let piece = &mut buffer[..left.min(READ_BACK_PIECE)];
            match calls::read_at(file, piece, offset)? {
                0 => {
                    let why = "the file is shorter than the received content";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                read => {
                    self.hasher.update(&piece[..read]);
                    offset += read as u64;
                    left -= read;
                }
            }
        }
        Ok(())
    }

    /// Returns the digest of all content, and closes the descriptor that it was read from.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}
