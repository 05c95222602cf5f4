//! Reasons for a failed transfer.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::copier::CopyError;
use crate::handshake::HandshakeError;
use crate::limits;
use crate::os_error::reason;

/// Reason for a failed transfer.
///
/// The peer was reset, and may send the file again. [`is_peer_fault`](Abort::is_peer_fault) separates
/// the reasons that need no action of the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Abort {
    /// The peer sent no byte for the [idle timeout](crate::SessionLimits::idle_timeout). Raise that if
    /// clients pause for longer.
    #[error("no data for {} s", .0.as_secs_f64())]
    Idle(Duration),
    /// The peer sent fewer bytes per second than the
    /// [minimum rate](crate::SessionLimits::min_rate), over [`limits::RATE_WINDOW`].
    #[error("only {got} bytes in {} s, below {min_rate} a second", limits::RATE_WINDOW.as_secs())]
    TooSlow {
        /// Number of bytes received.
        got: u64,
        /// Minimum rate in bytes per second.
        min_rate: u64,
    },
    /// The transfer took longer than its [maximum duration](crate::SessionLimits::max_duration).
    #[error("not complete after {} s", .0.as_secs_f64())]
    TooLong(Duration),
    /// The file is larger than the [maximum size](crate::SessionLimits::max_size).
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// The peer reset the connection, as a client does that gives up or is killed, or the network
    /// failed.
    #[error("connection lost: {}", reason(.0))]
    Reset(io::Error),
    /// The TLS connection ended without the close_notify of the peer: the file may have been
    /// truncated.
    #[error("the connection ended without close_notify")]
    Truncated,
    /// The bytes of the peer are not valid TLS, or it sent an alert, after the TLS handshake.
    #[error("TLS: {}", reason(.0))]
    Tls(io::Error),
    /// The peer violated the handshake of the only dialect that the server accepts:
    /// [`ServerDialect::Auto`](crate::ServerDialect::Auto) accepts clients of two.
    #[error("handshake: {0}")]
    Handshake(HandshakeError),
    /// The sink could not store the file, for example because the disk is full. `cause` says what to
    /// mend.
    #[error("cannot {action} the file: {}", reason(cause))]
    Sink {
        /// The call that failed.
        action: SinkCall,
        /// The error of the sink.
        cause: io::Error,
    },
    /// The system could not watch the connection, for example because memory is short, or the server
    /// panicked, which is a bug. The log has details.
    #[error("cannot serve the connection: {}", reason(.0))]
    System(io::Error),
    /// The sink rejected the file when it was to be opened, or the
    /// [reviewer](crate::ServerBuilder::reviewer) the complete file, for this reason.
    #[error("rejected: {0}")]
    Rejected(String),
    /// The server was stopped before the transfer was complete; a drain would have let it finish.
    #[error("the server was stopped")]
    Shutdown,
}

/// A call of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SinkCall {
    /// The file could not be opened.
    Open,
    /// The content could not be written.
    Write,
    /// The content could not be read back for its digest.
    Read,
    /// The complete file could not be stored.
    Commit,
}

impl SinkCall {
    /// Returns the name: `open`, `write`, `read` or `commit`.
    pub const fn name(self) -> &'static str {
        match self {
            SinkCall::Open => "open",
            SinkCall::Write => "write",
            SinkCall::Read => "read",
            SinkCall::Commit => "commit",
        }
    }
}

impl fmt::Display for SinkCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<HandshakeError> for Abort {
    fn from(error: HandshakeError) -> Self {
        Abort::Handshake(error)
    }
}

impl From<CopyError> for Abort {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Receive(source) => Abort::connection(source),
            CopyError::Write(cause) => Abort::Sink { action: SinkCall::Write, cause },
            CopyError::Read(cause) => Abort::Sink { action: SinkCall::Read, cause },
            CopyError::Idle(limit) => Abort::Idle(limit),
        }
    }
}

impl Abort {
    /// Returns the reason for an error of the connection, by the kinds that
    /// [`Socket`](super::Socket) defines.
    pub(super) fn connection(error: io::Error) -> Abort {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Abort::Truncated,
            io::ErrorKind::InvalidData => Abort::Tls(error),
            _ => Abort::Reset(error),
        }
    }

    pub(super) fn sink(action: SinkCall) -> impl FnOnce(io::Error) -> Abort {
        move |cause| Abort::Sink { action, cause }
    }

    /// Returns a word for the reason, for other programs. It is the same in all versions.
    ///
    /// The words are `idle`, `slow`, `long`, `large`, `reset`, `truncated`, `tls`, `handshake`,
    /// `rejected`, `system` and `shutdown`; for a failed sink `exists`, `full` or, for any other cause, `sink`.
    pub fn code(&self) -> &'static str {
        match self {
            Abort::Idle(_) => "idle",
            Abort::TooSlow { .. } => "slow",
            Abort::TooLong(_) => "long",
            Abort::TooLarge(_) => "large",
            Abort::Reset(_) => "reset",
            Abort::Truncated => "truncated",
            Abort::Tls(_) => "tls",
            Abort::Handshake(_) => "handshake",
            Abort::Sink { cause, .. } => match cause.kind() {
                io::ErrorKind::AlreadyExists => "exists",
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge => "full",
                _ => "sink",
            },
            Abort::Rejected(_) => "rejected",
            Abort::System(_) => "system",
            Abort::Shutdown => "shutdown",
        }
    }

    /// Returns whether the cause is the peer, its file or the network, not the server.
    pub fn is_peer_fault(&self) -> bool {
        !matches!(self, Abort::Sink { .. } | Abort::System(_) | Abort::Shutdown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_code() {
        let io = io::Error::from;
        let sink = |kind| Abort::Sink { action: SinkCall::Write, cause: io(kind) };
        for (abort, code) in [
            (Abort::Idle(Duration::from_secs(10)), "idle"),
            (Abort::TooSlow { got: 1, min_rate: 2 }, "slow"),
            (Abort::TooLong(Duration::from_secs(1)), "long"),
            (Abort::TooLarge(1), "large"),
            (Abort::Reset(io(io::ErrorKind::ConnectionReset)), "reset"),
            (Abort::connection(io(io::ErrorKind::ConnectionReset)), "reset"),
            (Abort::connection(io(io::ErrorKind::UnexpectedEof)), "truncated"),
            (Abort::connection(io(io::ErrorKind::InvalidData)), "tls"),
            (Abort::Handshake(HandshakeError::Closed { expected: b"x", matched: 0 }), "handshake"),
            (sink(io::ErrorKind::AlreadyExists), "exists"),
            (sink(io::ErrorKind::StorageFull), "full"),
            (sink(io::ErrorKind::QuotaExceeded), "full"),
            (sink(io::ErrorKind::FileTooLarge), "full"),
            (sink(io::ErrorKind::PermissionDenied), "sink"),
            (Abort::Rejected("too large for its sender".to_owned()), "rejected"),
            (Abort::System(io(io::ErrorKind::OutOfMemory)), "system"),
            (Abort::Shutdown, "shutdown"),
        ] {
            assert_eq!(abort.code(), code, "{abort}");
        }
    }

    #[test]
    fn distinguishes_faults_of_the_peer() {
        let io = || io::Error::from(io::ErrorKind::Other);
        let peers = [
            Abort::Idle(Duration::from_secs(10)),
            Abort::TooSlow { got: 1, min_rate: 2 },
            Abort::TooLong(Duration::from_secs(1)),
            Abort::TooLarge(1),
            Abort::Reset(io()),
            Abort::Truncated,
            Abort::Tls(io()),
            Abort::Rejected(String::new()),
            Abort::Handshake(HandshakeError::Closed { expected: b"x", matched: 0 }),
        ];
        let ours = [
            Abort::Sink { action: SinkCall::Write, cause: io() },
            Abort::System(io()),
            Abort::Shutdown,
        ];
        assert!(peers.iter().all(Abort::is_peer_fault));
        assert!(!ours.iter().any(Abort::is_peer_fault));
    }
}
