//! The client: connect, handshake, send, wait for the server's confirmation.
//!
//! The socket is armed to reset (SO_LINGER with no time) until the last byte is queued. So
//! whatever ends a client early, being killed included, reads as a reset at the server, and never
//! as a complete file.

mod confirm;
mod connect;
mod connection;
mod error;
mod meter;
mod send;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::ClientError;
pub use source::Source;

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
    fast_paths: Arc<FastPaths>,
    on_progress: Option<Arc<Callback>>,
}

/// What [`ClientBuilder::on_progress`] takes.
type Callback = dyn Fn(Progress) + Send + Sync;

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
                fast_paths: Arc::default(),
                on_progress: None,
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
        let (stream, peer) = connect::connect(host, port, self.connect_timeout)?;
        log::debug!("connected to {peer}");
        let mut connection = Connection::new(self, stream, peer)?;
        connection.greet()?;
        log::debug!("{} handshake with {peer} complete", self.dialect);
        connection.send(&mut source)?;
        let bytes = connection.meter.sent();
        log::debug!("all {bytes} bytes handed to the system");
        let confirmed = connection.finish()?;
        Ok(Sent { bytes, confirmed, peer, dialect: self.dialect, duration: start.elapsed() })
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
            .field("fast_paths", &self.fast_paths)
            .finish_non_exhaustive()
    }
}

/// Sets up a [`Client`]. Each time limit is ten seconds unless set.
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    client: Client,
}

impl ClientBuilder {
    /// The dialect to speak.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.client.dialect = dialect;
        self
    }

    /// The time for name resolution and connecting, over all addresses together.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.client.connect_timeout = limit;
        self
    }

    /// The time for the whole handshake.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.client.handshake_timeout = limit;
        self
    }

    /// The time without any progress, neither in sending nor in acknowledgement, that ends it.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.client.stall_timeout = limit;
        self
    }

    /// The time the server has to confirm, from its acknowledgement of the last byte.
    pub fn confirm_timeout(mut self, limit: Duration) -> Self {
        self.client.confirm_timeout = limit;
        self
    }

    /// Which of the kernel's fast paths are tried; the client's is
    /// [`FastPath::Sendfile`](crate::FastPath::Sendfile).
    pub fn fast_paths(mut self, fast_paths: FastPaths) -> Self {
        self.client.fast_paths = Arc::new(fast_paths);
        self
    }

    /// Calls `report` while a file is sent, about ten times a second, and once at its end. It runs
    /// between two sends: one that takes long slows the transfer down.
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.client.on_progress = Some(Arc::new(report));
        self
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// [`ClientError::Limit`] for a time limit that is zero or above [`limits::MAX_TIMEOUT`].
    pub fn build(self) -> Result<Client, ClientError> {
        let client = self.client;
        for (name, value) in [
            ("connect_timeout", client.connect_timeout),
            ("handshake_timeout", client.handshake_timeout),
            ("stall_timeout", client.stall_timeout),
            ("confirm_timeout", client.confirm_timeout),
        ] {
            if value.is_zero() || value > limits::MAX_TIMEOUT {
                return Err(ClientError::Limit { name, value });
            }
        }
        Ok(client)
    }
}
