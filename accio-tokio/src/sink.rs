//! Sinks whose calls are asynchronous.

use std::future::Future;
use std::io;

use accio_proto::{Connection, OpenError};
use bytes::Bytes;

/// Stores the files of a server, one per connection, without blocking a thread.
///
/// The contract is that of [`FileSink`](accio_proto::FileSink): the server opens a file for each
/// connection, writes the content to it, and ends it with exactly one successful
/// [`commit`](AsyncSinkFile::commit) or [`abort`](AsyncSinkFile::abort). Calls for one file come one
/// after another; different files are used concurrently. While a call waits, its connection receives
/// nothing, so that a slow sink slows its client down; this never counts as idle time of the peer. A
/// call that panics counts as failed.
///
/// # Cancellation
///
/// When the server stops, it drops the futures of [`open`](AsyncFileSink::open) and
/// [`write`](AsyncSinkFile::write); an abort or a mark follows. It waits for commits, aborts and
/// marks, so these must be bounded in time. A runtime that is dropped before the server has ended
/// drops all futures and files, and no other call follows.
pub trait AsyncFileSink: Send + Sync + 'static {
    /// The file of a connection.
    type File: AsyncSinkFile;

    /// Opens the file of a connection, after its first byte of content or its end has arrived.
    /// Nothing of the file may be visible before the commit or the abort.
    ///
    /// # Errors
    ///
    /// [`OpenError::Rejected`] rejects the file; [`OpenError::Failed`] is a failure of the sink. In
    /// both cases the server calls [`mark`](AsyncFileSink::mark).
    fn open(
        &self,
        connection: &Connection,
    ) -> impl Future<Output = Result<Self::File, OpenError>> + Send;

    /// Stores [`ERROR_MARKER`](accio_proto::ERROR_MARKER) for a connection whose file was never
    /// opened or could not be aborted.
    ///
    /// # Errors
    ///
    /// Nothing is stored. The server logs the error and adds it to the outcome.
    fn mark(&self, connection: &Connection) -> impl Future<Output = io::Result<()>> + Send;

    /// Returns whether there is room for another file. As long as this returns false, connections wait
    /// in the backlog, and the server asks again ten times a second. It must not block.
    fn has_room(&self) -> bool {
        true
    }

    /// Prepares for the end of the server. Called when it stops, before the connections in progress
    /// are aborted. It must not block.
    fn stopping(&self) {}
}

/// The file of a connection, from its first byte to commit or abort. If it is dropped without
/// either, as after a panic, it must leave nothing behind.
pub trait AsyncSinkFile: Send + 'static {
    /// Number of received bytes after which the server calls [`write`](AsyncSinkFile::write); less
    /// if no more have arrived. The server holds up to 64 KiB more in memory for each connection, or
    /// 1 MiB more with TLS or digests.
    const WRITE: usize = 1 << 20;

    /// Stores as many of the next bytes as possible without waiting, and returns their number. The
    /// remaining ones are passed to [`write`](AsyncSinkFile::write). The default stores none.
    ///
    /// A sink that copies bytes into buffers of its own saves a copy with this.
    fn try_write(&mut self, bytes: &[u8]) -> usize {
        let _ = bytes;
        0
    }

    /// Stores all of the next bytes: about [`WRITE`](AsyncSinkFile::WRITE) at most.
    ///
    /// # Errors
    ///
    /// The transfer has failed; the server calls [`abort`](AsyncSinkFile::abort).
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Stores the complete content. The peer is notified when this returns.
    ///
    /// # Errors
    ///
    /// Nothing of the file may be visible; the server calls [`abort`](AsyncSinkFile::abort).
    fn commit(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Stores [`ERROR_MARKER`](accio_proto::ERROR_MARKER), and none of the content, after the
    /// transfer has failed.
    ///
    /// # Errors
    ///
    /// Nothing of the file may be visible; the server calls [`AsyncFileSink::mark`].
    fn abort(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}
