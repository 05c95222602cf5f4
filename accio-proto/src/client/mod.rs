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
mod happy_eyeballs;
mod probe;
mod progress;
mod rate_limit;
mod send;
mod source;
#[cfg(feature = "tls")]
mod tls;
mod tls_failure;
// With calls of Linux's.
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
mod transport;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use builder::ClientBuilder;
pub use connect::Family;
pub use error::ClientError;
pub use event::ClientEvent;
pub use probe::{AddressProbe, Finding, Probe, ServerReply};
pub use source::Source;
pub use tls_failure::TlsFailure;

use crate::{Dialect, FastPaths, limits};
use connection::Connection;

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
#[derive(Clone)]
pub struct Client {
    dialect: Dialect,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    stall_timeout: Duration,
    confirm_timeout: Duration,
    family: Family,
    source_address: Option<IpAddr>,
    rate_limit: Option<NonZeroU64>,
    fast_paths: Arc<FastPaths>,
    on_progress: Option<Arc<Callback>>,
    on_event: Option<Arc<EventCallback>>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// What [`ClientBuilder::on_progress`] takes.
type Callback = dyn Fn(Progress) + Send + Sync;

/// What [`ClientBuilder::on_event`] takes.
type EventCallback = dyn Fn(&ClientEvent) + Send + Sync;

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

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes handed to this machine's kernel; it may hold megabytes of them.
    pub sent: u64,
    /// Bytes that the peer's kernel has acknowledged; `None` where this system does not tell.
    pub acknowledged: Option<u64>,
    /// Bytes to send, by the file's size at the start; `None` for a source without a size.
    pub total: Option<u64>,
}

impl Client {
    /// A client with the default limits, in the [`Dialect::Accio`], to be changed and then built.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            client: Client {
                dialect: Dialect::default(),
                connect_timeout: limits::CONNECT_TIMEOUT,
                handshake_timeout: limits::HANDSHAKE_TIMEOUT,
                stall_timeout: limits::STALL_TIMEOUT,
                confirm_timeout: limits::CONFIRM_TIMEOUT,
                family: Family::default(),
                source_address: None,
                rate_limit: None,
                fast_paths: Arc::default(),
                on_progress: None,
                on_event: None,
                #[cfg(feature = "tls")]
                tls: None,
            },
        }
    }

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
        #[cfg(feature = "tls")]
        let name = self.server_name(host)?;
        let (stream, peer) = self.connect(host, port)?;
        let mut connection = Connection::new(self, stream, peer)?;
        #[cfg(feature = "tls")]
        connection.secure(name)?;
        let connected = Instant::now();
        connection.greet()?;
        log::debug!("{} handshake with {peer} complete", self.dialect);
        let dialect = self.dialect;
        self.tell(|| ClientEvent::Greeted { peer, dialect, took: connected.elapsed() });
        let greeted = Instant::now();
        connection.send(&mut source)?;
        let bytes = connection.progress.sent();
        log::debug!("all {bytes} bytes handed to the system");
        self.tell(|| ClientEvent::Sent { peer, bytes, took: greeted.elapsed() });
        let confirmed = connection.finish()?;
        Ok(Sent { bytes, confirmed, peer, dialect, duration: start.elapsed() })
    }

    /// Tells the caller of a step, if it wants to know.
    fn tell(&self, event: impl FnOnce() -> ClientEvent) {
        if let Some(report) = &self.on_event {
            report(&event());
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("dialect", &self.dialect)
            .field("connect_timeout", &self.connect_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("family", &self.family)
            .field("source_address", &self.source_address)
            .field("rate_limit", &self.rate_limit)
            .field("fast_paths", &self.fast_paths)
            .finish_non_exhaustive()
    }
}
