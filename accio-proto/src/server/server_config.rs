//! The settings of a server as plain values.

use std::num::{NonZeroU32, NonZeroUsize};

use super::admission::Network;
use super::error::ServerError;
use super::threading_mode::Threading;
use crate::dialect::ServerDialect;
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::limits;
use crate::session::SessionLimits;

/// The settings of a server that are plain values, for programs that read them from elsewhere;
/// [`ServerBuilder::config`](super::ServerBuilder::config) applies them. The methods of the builder
/// with the same names explain them.
///
/// With the feature `serde` it can be read from any format: durations are numbers of seconds,
/// dialects, networks and algorithms their names, and missing fields have their defaults.
///
/// ```
/// let mut config = accio_proto::ServerConfig::default();
/// config.limits.max_size = Some(1 << 30);
/// config.validate()?;
/// # Ok::<(), accio_proto::ServerError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct ServerConfig {
    /// The dialects that the server accepts.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub dialect: ServerDialect,
    /// The limits of each transfer.
    pub limits: SessionLimits,
    /// How connections are distributed among threads; `None` lets the sink and the system decide.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub threading: Option<Threading>,
    /// Number of reactor threads that move content; `None` is one per core.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub workers: Option<NonZeroUsize>,
    /// Maximum number of concurrent connections; `None` is what the descriptor limit allows.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_connections: Option<NonZeroUsize>,
    /// Maximum number of concurrent connections per address; `None` is three quarters of all.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_per_ip: Option<NonZeroU32>,
    /// Maximum number of new connections per second and address.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_new_per_ip: Option<NonZeroU32>,
    /// Networks that may connect; empty for all.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::list"))]
    pub allow: Vec<Network>,
    /// Networks that may not connect.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::list"))]
    pub deny: Vec<Network>,
    /// Whether each connection comes from a proxy that sends a PROXY header.
    pub proxy_protocol: bool,
    /// The number of the first connection.
    pub first_id: u64,
    /// Whether to determine the local address of each connection.
    pub local_addresses: bool,
    /// The algorithm of a digest of each file.
    #[cfg(feature = "digest")]
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::text::option", skip_serializing_if = "Option::is_none")
    )]
    pub digest: Option<DigestAlgorithm>,
}

impl Default for ServerConfig {
    /// Returns the settings of a builder on which nothing was set.
    fn default() -> Self {
        ServerConfig {
            dialect: ServerDialect::default(),
            limits: SessionLimits::default(),
            threading: None,
            workers: None,
            max_connections: None,
            max_per_ip: None,
            max_new_per_ip: None,
            allow: Vec::new(),
            deny: Vec::new(),
            proxy_protocol: false,
            first_id: 1,
            local_addresses: true,
            #[cfg(feature = "digest")]
            digest: None,
        }
    }
}

impl ServerConfig {
    /// Checks the values, as [`listen`](super::ServerBuilder::listen) and
    /// [`bind`](super::ServerBuilder::bind) do.
    ///
    /// # Errors
    ///
    /// Returns [`ServerError::Timeout`] if a time limit is zero or above [`limits::MAX_TIMEOUT`],
    /// and [`ServerError::Workers`] for too many workers.
    pub fn validate(&self) -> Result<(), ServerError> {
        let times = [Some(self.limits.idle_timeout), self.limits.max_duration];
        for time in times.into_iter().flatten() {
            if time.is_zero() || time > limits::MAX_TIMEOUT {
                return Err(ServerError::Timeout(time));
            }
        }
        match self.workers {
            Some(workers) if workers.get() > limits::MAX_WORKERS => {
                Err(ServerError::Workers(workers))
            }
            _ => Ok(()),
        }
    }
}
