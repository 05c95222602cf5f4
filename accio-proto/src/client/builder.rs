//! Builder of a client.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::Client;
use super::config::ClientConfig;
use super::error::ClientError;
use super::event::ClientEvent;
use super::family::Family;
use super::progress::Progress;
use super::settings::Settings;
use crate::dialect::Dialect;
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::fast_path::FastPaths;

/// Builds a [`Client`]. Every setting has a default; that of each time limit is 10 seconds.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ClientBuilder {
    settings: Settings,
}

impl Client {
    /// Returns a builder with the default settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

impl ClientBuilder {
    /// Sets all settings of a configuration, instead of those that were set before.
    pub fn config(mut self, config: ClientConfig) -> Self {
        self.settings.config = config;
        self
    }

    /// Sets the dialect; [`Dialect::Accio`] by default.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.settings.config.dialect = dialect;
        self
    }

    /// Sets the time limit for name resolution and connecting, for all addresses together;
    /// [`limits::CONNECT_TIMEOUT`](crate::limits::CONNECT_TIMEOUT) by default.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.settings.config.connect_timeout = limit;
        self
    }

    /// Sets the time limit for the whole handshake; [`limits::HANDSHAKE_TIMEOUT`](crate::limits::HANDSHAKE_TIMEOUT) by default.
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.settings.config.handshake_timeout = limit;
        self
    }

    /// Sets how long an upload may make no progress, neither in sent nor in acknowledged bytes;
    /// [`limits::STALL_TIMEOUT`](crate::limits::STALL_TIMEOUT) by default.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.settings.config.stall_timeout = limit;
        self
    }

    /// Sets the time limit for the server's confirmation, from the acknowledgement of the last byte;
    /// [`limits::CONFIRM_TIMEOUT`](crate::limits::CONFIRM_TIMEOUT) by default.
    pub fn confirm_timeout(mut self, limit: Duration) -> Self {
        self.settings.config.confirm_timeout = limit;
        self
    }

    /// Limits the time for one whole upload, from resolving the host name to the confirmation.
    /// Unlimited by default. A [`Source::reader`](super::Source::reader) that blocks longer is noticed
    /// when it returns.
    pub fn transfer_timeout(mut self, limit: Duration) -> Self {
        self.settings.config.transfer_timeout = Some(limit);
        self
    }

    /// Restricts the client to the host's addresses of one family.
    pub fn family(mut self, family: Family) -> Self {
        self.settings.config.family = family;
        self
    }

    /// Connects from this address of the machine, and so only to addresses of its family. Port 0 lets
    /// the system choose the port; a link-local IPv6 address needs its scope.
    pub fn source_address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.settings.config.source_address = Some(address.into());
        self
    }

    /// Sets the maximum rate in bytes of content per second. A rate of less than one byte per idle
    /// timeout of the server fails: an Accio server waits 10 seconds for the next byte.
    pub fn rate_limit(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.settings.config.rate_limit = Some(bytes_per_second);
        self
    }

    /// Sets which fast paths of the kernel are tried: the client uses
    /// [`FastPath::Sendfile`](crate::FastPath::Sendfile) for files and
    /// [`FastPath::Splice`](crate::FastPath::Splice) for pipes. All by default.
    pub fn fast_paths(mut self, fast_paths: FastPaths) -> Self {
        self.settings.fast_paths = Arc::new(fast_paths);
        self
    }

    /// Computes a digest of the content while it is sent, for [`Sent::digest`](super::Sent::digest).
    /// None by default: with one, the content passes through the process instead of being sent by
    /// the kernel.
    #[cfg(feature = "digest")]
    pub fn digest(mut self, algorithm: DigestAlgorithm) -> Self {
        self.settings.config.digest = Some(algorithm);
        self
    }

    /// Encrypts the connection and authenticates the server with a rustls configuration, whose
    /// `alpn_protocols` should contain [`ALPN`](crate::tls::ALPN). The server's certificate is
    /// verified for the host that is passed to [`Client::send`].
    ///
    /// The TLS handshake counts against the
    /// [handshake timeout](ClientBuilder::handshake_timeout). The file ends with close_notify, and
    /// the server's close_notify confirms it.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        self.settings.tls = Some(config.into());
        self
    }

    /// Sets a function that is called during an upload, about ten times a second, and once at its
    /// end. It runs on the thread that sends, so a slow function slows the upload down.
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.settings.on_progress = Some(Arc::new(report));
        self
    }

    /// Sets a function that is called after each step of an upload, on the thread that sends.
    pub fn on_event(mut self, report: impl Fn(&ClientEvent) + Send + Sync + 'static) -> Self {
        self.settings.on_event = Some(Arc::new(report));
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    ///
    /// [`ClientError::Limit`] if a time limit is zero or above [`limits::MAX_TIMEOUT`](crate::limits::MAX_TIMEOUT).
    pub fn build(self) -> Result<Client, ClientError> {
        self.settings.config.validate()?;
        Ok(Client { settings: self.settings })
    }
}
