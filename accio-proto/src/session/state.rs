//! The state of a session, from its beginning until its file is committed or aborted.

use super::abort::Abort;
use super::time_limits::TransferClock;
use crate::connection::Connection;
use crate::content_hasher::ContentHasher;
use crate::digest::Digest;
use crate::handshake::ServerHandshake;

/// The state of a session. Its owners keep it in a box, because they are moved more often than used.
#[derive(Debug)]
pub(super) struct State<S, F> {
    pub(super) connection: Connection,
    pub(super) socket: S,
    pub(super) stage: Stage,
    /// Opened when the first byte of content arrives, so that a silent connection needs none.
    pub(super) file: Option<F>,
    /// Bytes to send. They fit into any send buffer, so this is soon empty.
    pub(super) unsent: &'static [u8],
    /// Content bytes received, whether or not they are stored in the end.
    pub(super) bytes: u64,
    /// Computes the digest, if one is requested. A failed session keeps it until its end: its drop closes a
    /// file, which the thread that notices the failure may not be allowed to do.
    pub(super) hasher: Option<Box<ContentHasher>>,
    pub(super) clock: TransferClock,
    /// The digest of a complete file.
    pub(super) digest: Option<Digest>,
    /// Whether the session has failed, and why.
    pub(super) result: Result<(), Abort>,
}

#[derive(Debug)]
pub(super) enum Stage {
    Handshake(ServerHandshake),
    Content {
        /// The last read filled the buffer, so there may be more to receive than the buffer holds.
        bulk: bool,
    },
}

impl Stage {
    /// The stage after the handshake.
    pub(super) const CONTENT: Stage = Stage::Content { bulk: false };

    /// Switches to plain reads; returns false if the session uses them already.
    pub(super) fn give_up_bulk(&mut self) -> bool {
        match self {
            Stage::Content { bulk } => std::mem::take(bulk),
            Stage::Handshake(_) => false,
        }
    }
}
