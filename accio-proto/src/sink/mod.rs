//! Where content goes: the sink contract, and the three sinks that come with the library.

mod count;
mod dir;
mod memory;

use std::io;
use std::os::fd::BorrowedFd;

pub use count::{CountFile, CountSink};
pub use dir::{DirError, DirErrorKind, DirFile, DirOptions, DirSink, Existing};
pub use memory::{MemoryFile, MemorySink, Stored};

/// What a file holds when its transfer failed: these five bytes and no more.
pub const ERROR_MARKER: &[u8] = b"ERROR";

/// Keeps the files of a server, one per connection.
///
/// For each connection a server calls [`open`](FileSink::open), then feeds the
/// [`SinkFile`], then ends it by exactly one of [`commit`](SinkFile::commit) and
/// [`abort`](SinkFile::abort). All calls for one file come from one thread at a time, not always
/// the same; different files are served at the same time. A call may block: it holds up its own
/// connection and one worker (see [`blocks`](FileSink::blocks)). The time it takes is never counted
/// as the peer's silence.
pub trait FileSink: Send + Sync + 'static {
    /// One connection's file.
    type File: SinkFile;

    /// Opens the file of connection `id`, when its first content byte or its end has come.
    ///
    /// Nothing of it may show before the commit or the abort.
    ///
    /// # Errors
    ///
    /// The connection is aborted, and [`mark`](FileSink::mark) is to leave the error marker.
    fn open(&self, id: u64) -> io::Result<Self::File>;

    /// Keeps [`ERROR_MARKER`] for connection `id`, whose file could not be opened or not even be
    /// aborted.
    ///
    /// # Errors
    ///
    /// Nothing is kept; the error is logged and told in the outcome.
    fn mark(&self, id: u64) -> io::Result<()> {
        self.open(id)?.abort()
    }

    /// Whether there is room for one more file. While there is none, connections wait in the
    /// backlog, and the question is asked again ten times a second.
    fn has_room(&self) -> bool {
        true
    }

    /// Whether calls may block for long, as those of a store at the other end of a network do. The
    /// server then gives each connection a thread of its own
    /// ([`PerSession`](crate::Threading::PerSession)), unless it is told otherwise: a few workers
    /// would all be held up at once. Asked once.
    fn blocks(&self) -> bool {
        false
    }
}

/// One connection's file, from its first byte to commit or abort.
///
/// Dropped without either, as in a panic, it must leave nothing behind.
pub trait SinkFile: Send + 'static {
    /// How the file wants the bytes that come next. Asked before every step.
    fn demand(&self) -> Demand<'_> {
        Demand::Bytes
    }

    /// Takes the next bytes, all of them.
    ///
    /// # Errors
    ///
    /// The transfer is over; [`abort`](SinkFile::abort) follows.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// `count` bytes arrived in the way [`demand`](SinkFile::demand) asked for, other than through
    /// [`write`](SinkFile::write): in the descriptor, or counted only.
    fn advance(&mut self, count: u64) {
        let _ = count;
    }

    /// The content is complete: keep it. The peer is told once this returns.
    ///
    /// # Errors
    ///
    /// Nothing may be left of it; [`FileSink::mark`] is to leave the error marker.
    fn commit(self) -> io::Result<()>;

    /// The transfer failed: keep [`ERROR_MARKER`] and nothing of the partial content.
    ///
    /// # Errors
    ///
    /// Nothing may be left of it; [`FileSink::mark`] is to leave the marker.
    fn abort(self) -> io::Result<()>;
}

/// How a file wants its next bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Demand<'a> {
    /// In a buffer, by [`SinkFile::write`].
    Bytes,
    /// Put into this descriptor at its position, where the kernel can; else by
    /// [`SinkFile::write`].
    Descriptor(BorrowedFd<'a>),
    /// Not at all: only counted. Where that must go through a buffer, it is dropped there.
    Count,
}
