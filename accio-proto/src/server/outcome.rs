//! The outcome of a connection.

use std::io;
use std::time::{Duration, SystemTime};

use crate::connection::Connection;
use crate::digest::Digest;
use crate::session::Abort;

/// The outcome of one connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The number of the connection, its addresses, identity and dialect.
    pub connection: Connection,
    /// Number of content bytes received, excluding the handshake, whether or not they were stored.
    pub bytes: u64,
    /// The digest of a complete file, if the server computes digests.
    pub digest: Option<Digest>,
    /// Time from accept to commit or abort.
    pub duration: Duration,
    /// The time of the commit or abort.
    pub ended: SystemTime,
    /// Whether the file is complete and, if not, why it contains the error marker.
    pub result: Result<(), Abort>,
    /// The reason why not even the error marker could be stored: there is no new file with this
    /// number.
    pub unmarked: Option<io::Error>,
}
