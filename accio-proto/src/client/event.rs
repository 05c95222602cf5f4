//! Steps of an upload.

use std::net::SocketAddr;
use std::time::Duration;

use crate::dialect::Dialect;

/// A completed step of an upload. Steps are reported in this order until one fails.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The host name was resolved. The addresses are tried in this order.
    #[non_exhaustive]
    Resolved {
        /// Addresses that the client may use.
        addresses: Vec<SocketAddr>,
        /// Duration of the step.
        took: Duration,
    },
    /// The connection is established. The server counts it from now on.
    #[non_exhaustive]
    Connected {
        /// Address of the server.
        peer: SocketAddr,
        /// Local address.
        local: Option<SocketAddr>,
        /// Duration of the step, for all addresses tried.
        took: Duration,
    },
    /// The TLS handshake is complete and the server is authenticated.
    #[non_exhaustive]
    Secured {
        /// Address of the server.
        peer: SocketAddr,
        /// Duration of the step.
        took: Duration,
    },
    /// The handshake is complete. The dialect `direct` has none, so this follows immediately.
    #[non_exhaustive]
    Greeted {
        /// Address of the server.
        peer: SocketAddr,
        /// Dialect of the connection.
        dialect: Dialect,
        /// Duration of the step.
        took: Duration,
    },
    /// All content has been passed to the kernel; the confirmation of the server follows.
    #[non_exhaustive]
    Sent {
        /// Address of the server.
        peer: SocketAddr,
        /// Size of the content in bytes.
        bytes: u64,
        /// Duration of the step.
        took: Duration,
    },
}

/// Receives the steps of an upload.
pub(super) type EventObserver = dyn Fn(&ClientEvent) + Send + Sync;
