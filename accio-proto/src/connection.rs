//! The description of a connection, for sinks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::dialect::Dialect;

/// The description of an accepted connection, from which a [`FileSink`](crate::FileSink) can choose
/// the name of its file, or reject it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// The number of the connection, from 1 in the order of acceptance.
    pub id: u64,
    /// The address of the client, if the system knows it. Behind a proxy, the address that its
    /// PROXY header contains.
    ///
    /// If the server listens on an IPv6 address, a client with IPv4 has a mapped one: compare
    /// `peer.ip().to_canonical()`. The server's own limits count an IPv6 /64 as one address.
    pub peer: Option<SocketAddr>,
    /// The local address of the connection, if the system knows it and the server
    /// [determines](crate::ServerBuilder::local_addresses) it.
    pub local: Option<SocketAddr>,
    /// The client's identity, if it presented a certificate under TLS.
    pub identity: Option<Arc<str>>,
    /// The dialect of the client, once it is known.
    pub dialect: Option<Dialect>,
    /// The time at which the connection got its number.
    pub accepted: SystemTime,
}

impl Connection {
    /// Returns the description of connection `id`, accepted now, with nothing else known about it.
    pub fn new(id: u64) -> Self {
        let (peer, local, identity, dialect) = (None, None, None, None);
        Connection { id, peer, local, identity, dialect, accepted: SystemTime::now() }
    }
}
