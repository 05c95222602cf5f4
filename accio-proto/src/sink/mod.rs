//! Destinations of content: the sink traits, and the three sinks of the library.

mod count;
mod dir;
mod memory;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::connection::Connection;
use crate::os_error::reason;

pub use count::{CountFile, CountSink};
pub use dir::{DirError, DirErrorKind, DirFile, DirOptions, DirSink, Existing};
pub use memory::{MemoryFile, MemorySink, Stored};

/// Content of the file of a failed transfer: these five bytes and nothing else.
pub const ERROR_MARKER: &[u8] = b"ERROR";

/// Stores the files of a server, one per connection.
///
/// For each connection the server calls [`open`](FileSink::open), passes the content to the
/// [`SinkFile`], ends it with exactly one successful [`commit`](SinkFile::commit) or
/// [`abort`](SinkFile::abort), and drops it. Calls for one file come from one thread at a time,
/// which may change; different files are used concurrently. A call may block: this delays its own
/// connection and occupies one thread (see [`blocks`](FileSink::blocks)), and never counts as idle
/// time of the peer. A call that panics counts as failed.
///
/// # Sinks that wrap other sinks
///
/// A sink that wraps another one passes on [`mark`](FileSink::mark), [`has_room`](FileSink::has_room),
/// [`blocks`](FileSink::blocks), [`stopping`](FileSink::stopping) and [`tidy`](FileSink::tidy):
/// without `mark`, a sink that rejects a file has no error marker for it; without `has_room`, the
/// minimum of free space of a [`DirSink`] has no effect; without `blocks`, a sink that blocks has too few
/// threads; without `stopping`, it delays a stop; without `tidy`, a durable `DirSink` does not sync its
/// markers. Durable commits are collected only if [`commits_in_groups`](FileSink::commits_in_groups) and
/// [`commit_all`](FileSink::commit_all) are passed on.
///
/// Its files need not pass on [`demand`](SinkFile::demand): the content then passes through the
/// process, to [`write`](SinkFile::write). If they do, they must pass on [`advance`](SinkFile::advance),
/// which is called instead of `write` if the kernel can move the content, and should pass on
/// [`reopen`](SinkFile::reopen): without it, content is copied once more to compute its digest. Without
/// [`is_full`](SinkFile::is_full), a sink that stores content later has to hold more of it. A reviewer needs [`prepare_review`](SinkFile::prepare_review) and
/// [`descriptor`](SinkFile::descriptor). The [guide](crate::guide#a-sink-that-wraps-another-one) has an
/// example.
pub trait FileSink: Send + Sync + 'static {
    /// The file of a connection.
    type File: SinkFile;

    /// Opens the file of a connection, after its first byte of content or its end has arrived. The
    /// connection's dialect is known then.
    ///
    /// Nothing of the file may be visible before the commit or the abort.
    ///
    /// # Errors
    ///
    /// [`OpenError::Rejected`] rejects the file, for example because its peer has used up a quota;
    /// [`OpenError::Failed`] is a failure of the sink. The reason becomes part of the outcome. In
    /// both cases the server aborts the connection and calls [`mark`](FileSink::mark), which must
    /// store the error marker.
    fn open(&self, connection: &Connection) -> Result<Self::File, OpenError>;

    /// Stores [`ERROR_MARKER`] for a connection whose file was never opened or could not be
    /// aborted.
    ///
    /// The default opens a file and aborts it, so a sink that rejects files must implement this. The
    /// dialect may be unknown.
    ///
    /// # Errors
    ///
    /// Nothing is stored. The server logs the error and adds it to the outcome.
    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.open(connection)?.abort()
    }

    /// Returns whether there is room for another file. As long as this returns false, connections wait
    /// in the backlog, and the server asks again ten times a second. The server may reuse `true` for a
    /// fifth of a second, or for as long as the next call takes. By default there is always room.
    fn has_room(&self) -> bool {
        true
    }

    /// Returns whether calls may block for long, as those of a remote store do. The server then
    /// gives each connection a thread of its own ([`PerSession`](crate::Threading::PerSession)),
    /// unless it is configured otherwise. Called once. By default they do not.
    fn blocks(&self) -> bool {
        false
    }

    /// Returns whether a commit waits for the disk, so that several commits together are faster
    /// than one after the other. The [reactor](crate::Threading::Reactor) and `accio-tokio` then collect
    /// waiting commits and call [`commit_all`](FileSink::commit_all). Called once. By default it does
    /// not.
    fn commits_in_groups(&self) -> bool {
        false
    }

    /// Commits several files like [`SinkFile::commit`]; returns the result of each, in the same
    /// order. A file without a result has failed.
    ///
    /// Calls `may_name` with the index of a file right before that file becomes visible. If it
    /// returns false, the server has ended the connection in the meantime, and the file must stay
    /// invisible, and its result must be an error. The default commits one file after the other.
    ///
    /// The [reactor](crate::Threading::Reactor) also commits single files by this call. When it stops, a
    /// connection whose commit has not yet called `may_name` gets its error marker and its report even if
    /// the commit does not return; so work that may take long belongs before the call.
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

    /// Prepares for the end of the server. Called when it stops: the markers of all connections in
    /// progress then have to be stored within a fraction of a second. It should return at once: the
    /// [reactor](crate::Threading::Reactor) waits for a tenth of a second at most before it stores them,
    /// and a server with a thread per session until it returns. The default does nothing.
    fn stopping(&self) {}

    /// Does work that no connection waits for, such as syncing error markers to the disk. The
    /// reactor calls it after it has dropped aborted files, in a separate thread. The default does
    /// nothing.
    fn tidy(&self) {}
}

/// The reason why a sink does not open a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The sink rejects the file, for this reason, which should be printable text of one line. The
    /// transfer ends with [`Abort::Rejected`](crate::Abort::Rejected).
    #[error("rejected: {0}")]
    Rejected(String),
    /// The sink could not open the file, for example because no space or descriptor is left. The
    /// transfer ends with [`Abort::Sink`](crate::Abort::Sink).
    #[error("{}", reason(.0))]
    Failed(io::Error),
}

impl OpenError {
    /// Returns a rejection for a reason, which should be printable text of one line.
    pub fn rejected(why: impl Into<String>) -> Self {
        OpenError::Rejected(why.into())
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Failed(error)
    }
}

/// Keeps the text. The result says nothing to the server: every error of a [`SinkFile`] is a failure of
/// the sink.
impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Rejected(_) => {
                io::Error::new(io::ErrorKind::PermissionDenied, error.to_string())
            }
            OpenError::Failed(error) => error,
        }
    }
}

/// The file of a connection, from its first byte to commit or abort.
///
/// If it is dropped without either, as after a panic, it must leave nothing behind. Freeing the
/// space of discarded content may take long, so it belongs in `drop`: the server drops an aborted
/// file only after it has notified the peer.
pub trait SinkFile: Send + 'static {
    /// Returns how the file accepts the next bytes. Called before every step. The default is
    /// [`Demand::Bytes`].
    fn demand(&self) -> Demand<'_> {
        Demand::Bytes
    }

    /// Stores all of the next bytes.
    ///
    /// # Errors
    ///
    /// The transfer has failed with [`Abort::Sink`](crate::Abort::Sink), a fault of the server,
    /// whatever the error; the server calls [`abort`](SinkFile::abort). Only
    /// [`open`](FileSink::open) and a [reviewer](crate::ServerBuilder::reviewer) can reject a file.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns whether the connection's turn should end after these bytes, for a sink that does work
    /// between the turns. Called after every step. By default it should not.
    fn is_full(&self) -> bool {
        false
    }

    /// Records that `count` bytes were moved as requested by [`demand`](SinkFile::demand): into the
    /// descriptor, or only counted. Not called for [`write`](SinkFile::write). The default does
    /// nothing.
    fn advance(&mut self, count: u64) {
        let _ = count;
    }

    /// Prepares the complete content for a [review](crate::ServerBuilder::reviewer) before the
    /// commit: it must be readable through other descriptors of the same file. It may block. The
    /// default does nothing.
    ///
    /// # Errors
    ///
    /// The transfer has failed; the server calls [`abort`](SinkFile::abort).
    fn prepare_review(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Returns the descriptor of the content, if it has one, for a review. It need not be readable:
    /// a reviewer opens the file again. By default there is none.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Opens the file a second time, to read its content back for a digest. The descriptor must return,
    /// from offset 0, exactly the bytes that the file has received through its
    /// [descriptor](Demand::Descriptor) and by [`write`](SinkFile::write). Called at most once, when the
    /// content is large and the kernel moves it into that descriptor; with `None`, content passes through a
    /// buffer to be hashed. The descriptor is closed before the commit. It may block. The
    /// default returns `None`.
    fn reopen(&self) -> Option<OwnedFd> {
        None
    }

    /// Stores the complete content. The peer is notified when this returns.
    ///
    /// # Errors
    ///
    /// Nothing of the file may be visible; the server calls [`abort`](SinkFile::abort).
    fn commit(&mut self) -> io::Result<()>;

    /// Stores [`ERROR_MARKER`], and none of the content, after the transfer has failed.
    ///
    /// # Errors
    ///
    /// Nothing of the file may be visible; the server calls [`FileSink::mark`], which must store
    /// the marker.
    fn abort(&mut self) -> io::Result<()>;
}

/// The way in which a file accepts its next bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Demand<'a> {
    /// The bytes are passed to [`SinkFile::write`].
    Bytes,
    /// The bytes are moved into this descriptor, at its position, if the kernel supports that;
    /// otherwise they are passed to [`SinkFile::write`].
    Descriptor(BorrowedFd<'a>),
    /// Only counted. If that needs a buffer, the bytes are dropped from it.
    Count,
}
