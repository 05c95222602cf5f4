//! Where content goes: the sink contract, and the three sinks that come with the library.

mod count;
mod dir;
mod memory;

use std::io;
use std::os::fd::BorrowedFd;

pub use count::{CountFile, CountSink};
pub use dir::{DirError, DirErrorKind, DirFile, DirOptions, DirSink, Existing};
pub use memory::{MemoryFile, MemorySink, Stored};

/// The content of a file whose transfer failed: these five bytes and no more.
pub const ERROR_MARKER: &[u8] = b"ERROR";

/// Keeps the files of a server, one per connection.
///
/// For each connection a server calls [`open`](FileSink::open), then feeds the [`SinkFile`], then
/// ends it with exactly one successful [`commit`](SinkFile::commit) or
/// [`abort`](SinkFile::abort), and drops it. All calls for one file come from one thread at a
/// time, not always the same; different files are served at the same time. A call may block: it
/// delays its own connection and occupies one thread (see [`blocks`](FileSink::blocks)). The time
/// it takes never counts as the peer's silence. A call that panics counts as one that failed.
pub trait FileSink: Send + Sync + 'static {
    /// One connection's file.
    type File: SinkFile;

    /// Opens the file of connection `id`, when its first content byte or its end has come.
    ///
    /// Nothing of it may be visible before the commit or the abort.
    ///
    /// # Errors
    ///
    /// The connection is aborted, and [`mark`](FileSink::mark) must leave the error marker.
    fn open(&self, id: u64) -> io::Result<Self::File>;

    /// Keeps [`ERROR_MARKER`] for connection `id`, whose file was never opened or could not be
    /// aborted.
    ///
    /// # Errors
    ///
    /// Nothing is kept; the error is logged and is part of the outcome.
    fn mark(&self, id: u64) -> io::Result<()> {
        self.open(id)?.abort()
    }

    /// Whether there is room for one more file. While there is none, connections wait in the
    /// backlog, and the question is asked again ten times a second.
    /// While there is, an answer may be used for up to a second.
    fn has_room(&self) -> bool {
        true
    }

    /// Whether calls may block for long, as those of a remote store do. The server then gives each
    /// connection a thread of its own ([`PerSession`](crate::Threading::PerSession)), unless it is
    /// configured otherwise. Asked once.
    fn blocks(&self) -> bool {
        false
    }

    /// Whether a commit waits for the disk, so that several together are cheaper than each alone.
    /// The [reactor](crate::Threading::Reactor) then collects those that wait and calls
    /// [`commit_all`](FileSink::commit_all). Asked once.
    fn commits_in_groups(&self) -> bool {
        false
    }

    /// Commits several files, as [`SinkFile::commit`] does for one; returns the result of each in
    /// the same order.
    ///
    /// Calls `may_name` with a file's index right before that file becomes visible. If the answer
    /// is no, the connection has been ended meanwhile, and the file must stay invisible; its result
    /// does not matter.
    fn commit_all(
        &self,
        files: &mut [&mut Self::File],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        let commit = |(index, file): (usize, &mut &mut Self::File)| match may_name(index) {
            true => file.commit(),
            false => Err(io::ErrorKind::Interrupted.into()),
        };
        files.iter_mut().enumerate().map(commit).collect()
    }

    /// Does work for which no connection has to wait, such as writing error markers to the disk.
    /// The reactor calls it after it has dropped aborted files, on a thread of its own.
    fn tidy(&self) {}
}

/// One connection's file, from its first byte to commit or abort.
///
/// Dropped without either, as after a panic, it must leave nothing behind. Releasing the storage of
/// discarded content may take long; that belongs into `drop`, for the server drops an aborted file
/// only after the peer was told.
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

    /// The content is complete: keeps it. The peer is told once this returns.
    ///
    /// # Errors
    ///
    /// Nothing of it may be visible; [`abort`](SinkFile::abort) follows.
    fn commit(&mut self) -> io::Result<()>;

    /// The transfer failed: keeps [`ERROR_MARKER`] and nothing of the partial content.
    ///
    /// # Errors
    ///
    /// Nothing of it may be visible; [`FileSink::mark`] must leave the marker.
    fn abort(&mut self) -> io::Result<()>;
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
