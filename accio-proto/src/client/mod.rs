//! The client: connects, performs the handshake, sends the file and waits for the confirmation.
//!
//! Until the last byte is queued, closing the socket resets the connection (`SO_LINGER` with a
//! timeout of zero). If the client ends early for any reason, even if it is killed, the server
//! therefore sees a reset and never a complete file.

mod builder;
mod confirm;
mod connect;
mod connection;
mod error;
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

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use builder::ClientBuilder;
pub use error::ClientError;
pub use event::ClientEvent;
pub use family::Family;
pub use probe::{AddressProbe, Finding, Probe, ServerReply};
pub use progress::Progress;
pub use source::Source;
pub use tls_failure::TlsFailure;

use crate::dialect::Dialect;
use crate::digest::Digest;
use crate::hasher::Hasher;
use connection::Connection;
use settings::Settings;

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
    /// did not respond in time.
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
        let mut source = source.into();
        let start = Instant::now();
        let end = self.settings.transfer_timeout.map(|limit| start + limit);
        #[cfg(feature = "tls")]
        let name = self.settings.server_name(host)?;
        let (stream, peer) = self.settings.connect(host, port, end)?;
        let mut connection = Connection::new(&self.settings, stream, peer, end)?;
        #[cfg(feature = "tls")]
        connection.secure(name).map_err(|error| connection.or_too_long(error))?;
        let connected = Instant::now();
        connection.greet().map_err(|error| connection.or_too_long(error))?;
        log::debug!("{} handshake with {peer} complete", self.settings.dialect);
        let dialect = self.settings.dialect;
        self.settings.report(|| ClientEvent::Greeted { peer, dialect, took: connected.elapsed() });
        let greeted = Instant::now();
        connection.send(&mut source)?;
        let bytes = connection.progress.sent();
        let digest = connection.hasher.take().map(Hasher::finish);
        log::debug!("all {bytes} bytes handed to the system");
        self.settings.report(|| ClientEvent::Sent { peer, bytes, took: greeted.elapsed() });
        let confirmed = connection.finish()?;
        Ok(Sent { bytes, digest, confirmed, peer, dialect, duration: start.elapsed() })
    }
}
