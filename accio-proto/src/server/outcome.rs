//! What became of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::Dialect;
use crate::digest::Digest;
use crate::session::Abort;

/// What became of one connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The number of the connection, from 1 in the order of acceptance.
    pub id: u64,
    /// Who connected, where the system knows.
    pub peer: Option<SocketAddr>,
    /// The client's name, if it presented a certificate under TLS.
    pub identity: Option<Arc<str>>,
    /// What the client spoke, once it was known.
    pub dialect: Option<Dialect>,
    /// Content bytes received, whether or not they were kept; no handshake byte among them.
    pub bytes: u64,
    /// The digest of a complete file, if the server computes digests.
    pub digest: Option<Digest>,
    /// From accept to commit or abort.
    pub duration: Duration,
    /// Whether the file is complete, and if not, why it holds the error marker.
    pub result: Result<(), Abort>,
    /// Why not even the error marker could be kept: nothing new is there under this number.
    pub unmarked: Option<io::Error>,
}
