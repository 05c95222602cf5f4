//! A client's settings.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::{Client, ClientError, ClientEvent, Family, Progress};
use crate::{Dialect, FastPaths, limits};

/// Sets up a [`Client`]. Each time limit is ten seconds unless set.
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    pub(super) client: Client,
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

    /// Uses only the host's addresses of this family.
    pub fn family(mut self, family: Family) -> Self {
        self.client.family = family;
        self
    }

    /// Connects from this address of the machine, and so only to addresses of its family.
    pub fn source_address(mut self, ip: IpAddr) -> Self {
        self.client.source_address = Some(ip);
        self
    }

    /// Sends no more than this many bytes of content per second, from the first one on. A server's
    /// patience is the lower end: an Accio server waits ten seconds for the next byte.
    pub fn rate_limit(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.client.rate_limit = Some(bytes_per_second);
        self
    }

    /// Which of the kernel's fast paths are tried; the client's are
    /// [`FastPath::Sendfile`](crate::FastPath::Sendfile) for files and
    /// [`FastPath::Splice`](crate::FastPath::Splice) for pipes.
    pub fn fast_paths(mut self, fast_paths: FastPaths) -> Self {
        self.client.fast_paths = Arc::new(fast_paths);
        self
    }

    /// Encrypts the connection and authenticates the server, by rustls's own configuration. Put
    /// [`ALPN`](crate::tls::ALPN) into its `alpn_protocols`. The server's certificate is verified
    /// for the host as given to [`Client::send`].
    ///
    /// The TLS handshake counts against the time of the
    /// [handshake](ClientBuilder::handshake_timeout). The file then ends with close_notify, and the
    /// server's close_notify confirms it.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        self.client.tls = Some(config.into());
        self
    }

    /// Calls `report` while a file is sent, about ten times a second, and once at its end. It runs
    /// between two sends: one that takes long slows the transfer down.
    pub fn on_progress(mut self, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.client.on_progress = Some(Arc::new(report));
        self
    }

    /// Calls `report` at each step that is done, on the thread that sends.
    pub fn on_event(mut self, report: impl Fn(&ClientEvent) + Send + Sync + 'static) -> Self {
        self.client.on_event = Some(Arc::new(report));
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
