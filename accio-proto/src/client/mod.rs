//! The client: connects, performs the handshake, sends the file and waits for the confirmation.
//!
//! Until the last byte is queued, closing the socket resets the connection (`SO_LINGER` with a
//! timeout of zero). If the client ends early for any reason, even if it is killed, the server
//! therefore sees a reset and never a complete file.

mod builder;
mod config;
mod confirm;
mod connect;
mod connected;
mod connection;
mod error;
mod error_properties;
mod error_text;
mod event;
mod family;
mod happy_eyeballs;
mod probe;
mod progress;
mod rate_limit;
#[cfg(feature = "tls")]
mod secured;
mod send;
mod settings;
mod source;
#[cfg(feature = "tls")]
mod tls;
mod tls_failure;
// The tests use system calls of Linux.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
mod transport;
mod watch;

use std::net::SocketAddr;
use std::time::Duration;

pub use builder::ClientBuilder;
pub use config::ClientConfig;
pub use connected::Connected;
pub use error::ClientError;
pub use event::ClientEvent;
pub use family::Family;
pub use probe::{AddressProbe, Finding, Probe, ServerReply};
pub use progress::Progress;
pub use source::Source;
pub use tls_failure::TlsFailure;
pub use watch::Watch;

use crate::dialect::Dialect;
use crate::digest::Digest;
use settings::Settings;
use watch::block;

/// Sends files to Accio servers, one per connection. The calling thread blocks during an upload.
///
/// ```no_run
/// use std::fs::File;
///
/// let client = accio_proto::Client::builder().build()?;
/// let sent = client.send("localhost", 5000, File::open("photo.jpg")?)?;
/// assert!(sent.confirmed, "the server has kept all {} bytes", sent.bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    settings: Settings,
}

/// A file that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Digest of the content, if the client computes it.
    pub digest: Option<Digest>,
    /// Whether the server closed the connection after the end of the file, which confirms that it
    /// has stored the file. If not, the server's kernel has acknowledged every byte, but the server
    /// did not respond in time: it may have stored the file, as after an error for which
    /// [`may_be_stored`](ClientError::may_be_stored) returns true, and a retry may store it twice.
    pub confirmed: bool,
    /// Address of the server.
    pub peer: SocketAddr,
    /// Dialect of the connection.
    pub dialect: Dialect,
    /// Time from the start, name resolution included, to the confirmation.
    pub duration: Duration,
}

impl Client {
    /// Sends all of `source` to `host`, which is a host name, an IPv4 address or an IPv6 address.
    ///
    /// A program whose `main` is not a Rust function must ignore SIGPIPE before, as the Rust
    /// runtime does.
    ///
    /// # Errors
    ///
    /// See [`ClientError`], which also describes the state of the file on the server.
    pub fn send<'a>(
        &self,
        host: &str,
        port: u16,
        source: impl Into<Source<'a>>,
    ) -> Result<Sent, ClientError> {
        let connected = self.connect(host, port)?;
        block(self.transfer(connected, None, source.into()))
    }
}
