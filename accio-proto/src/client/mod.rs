//! The client: connect, handshake, send, wait for the server's confirmation.
//!
//! The socket is armed to reset (SO_LINGER with no time) until the last byte is queued. So
//! whatever ends a client early, being killed included, reads as a reset at the server, and never
//! as a complete file.

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
// With calls of Linux's.
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
use connection::Connection;
use settings::Settings;

/// Sends files to Accio servers, a connection each; blocks while it does.
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

/// A file that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Its size.
    pub bytes: u64,
    /// Whether the server closed the connection after the end of the file, which is its word for
    /// having kept it. If not, its system has acknowledged every byte, but the server said nothing
    /// in time.
    pub confirmed: bool,
    /// The address that took the connection.
    pub peer: SocketAddr,
    /// The dialect spoken.
    pub dialect: Dialect,
    /// From the start, name resolution included, to the confirmation.
    pub duration: Duration,
}

impl Client {
    /// Sends all of `source` to `host`, a name or an IPv4 or IPv6 address.
    ///
    /// Within a program whose `main` is not Rust's, ignore SIGPIPE first, as Rust's does.
    ///
    /// # Errors
    ///
    /// See [`ClientError`], which also says what each means for the file at the server.
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
        log::debug!("all {bytes} bytes handed to the system");
        self.settings.report(|| ClientEvent::Sent { peer, bytes, took: greeted.elapsed() });
        let confirmed = connection.finish()?;
        Ok(Sent { bytes, confirmed, peer, dialect, duration: start.elapsed() })
    }
}
