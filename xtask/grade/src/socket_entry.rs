//! A TCP socket, as the kernel reports it.

use std::net::SocketAddr;

/// The state of a TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its local address.
    pub(crate) local: SocketAddr,
    /// The address of its peer.
    pub(crate) remote: SocketAddr,
    /// The kernel's number of its state.
    pub(crate) state: u8,
    /// Number of received bytes that were not read yet; of a listening socket, the number of
    /// connections that were not accepted yet.
    pub(crate) unread: u64,
    /// Number of sent bytes that the other side has not acknowledged yet.
    pub(crate) unacknowledged: u64,
    /// Its inode; 0 for a connection that was not accepted yet.
    pub(crate) inode: u64,
}
