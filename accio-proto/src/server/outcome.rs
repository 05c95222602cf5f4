//! The outcome of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::digest::Digest;
use crate::session::Abort;

/// The outcome of one connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The number of the connection, from 1 in the order of acceptance.
    pub id: u64,
    /// The address of the client, if the system knows it.
    pub peer: Option<SocketAddr>,
    /// The client's identity, if it presented a certificate under TLS.
    pub identity: Option<Arc<str>>,
    /// The dialect of the client, if it is known.
    pub dialect: Option<Dialect>,
    /// Number of content bytes received, excluding the handshake, whether or not they were stored.
    pub bytes: u64,
    /// The digest of a complete file, if the server computes digests.
    pub digest: Option<Digest>,
    /// Time from accept to commit or abort.
    pub duration: Duration,
    /// Whether the file is complete and, if not, why it contains the error marker.
    pub result: Result<(), Abort>,
    /// The reason why not even the error marker could be stored: there is no new file with this
    /// number.
    pub unmarked: Option<io::Error>,
}
