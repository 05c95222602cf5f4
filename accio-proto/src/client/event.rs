//! What a client tells of while it works.

use std::net::SocketAddr;
use std::time::Duration;

use crate::dialect::Dialect;

/// A step of a transfer that is done; in this order, until one fails.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The host has these addresses; they are tried in this order.
    #[non_exhaustive]
    Resolved {
        /// The addresses that the client may use.
        addresses: Vec<SocketAddr>,
        /// How long that took.
        took: Duration,
    },
    /// A server has taken the connection. From here on it counts it.
    #[non_exhaustive]
    Connected {
        /// The server.
        peer: SocketAddr,
        /// This end.
        local: Option<SocketAddr>,
        /// How long that took, over all addresses tried.
        took: Duration,
    },
    /// The TLS handshake is complete, and the server is the one expected.
    #[non_exhaustive]
    Secured {
        /// The server.
        peer: SocketAddr,
        /// How long that took.
        took: Duration,
    },
    /// The handshake is complete. In the dialect `direct` there is none, and this comes at once.
    #[non_exhaustive]
    Greeted {
        /// The server.
        peer: SocketAddr,
        /// The dialect spoken.
        dialect: Dialect,
        /// How long that took.
        took: Duration,
    },
    /// All content is handed to this machine's kernel; next comes the server's word.
    #[non_exhaustive]
    Sent {
        /// The server.
        peer: SocketAddr,
        /// The size of the content.
        bytes: u64,
        /// How long that took.
        took: Duration,
    },
}

/// Receives the steps of an upload.
pub(super) type EventObserver = dyn Fn(&ClientEvent) + Send + Sync;
