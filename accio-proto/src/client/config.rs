//! The settings of a client as plain values.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use super::error::ClientError;
use super::family::Family;
use crate::dialect::Dialect;
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::limits;

/// The settings of a client that are plain values, for programs that read them from elsewhere;
/// [`ClientBuilder::config`](super::ClientBuilder::config) applies them. The methods of the builder
/// with the same names explain them.
///
/// With the feature `serde` it can be read from any format: durations are numbers of seconds,
/// dialects and algorithms their names, and missing fields have their defaults.
///
/// ```
/// use accio_proto::{Client, ClientConfig, Dialect};
///
/// let mut config = ClientConfig::default();
/// config.dialect = Dialect::Confirm;
/// let client = Client::builder().config(config).build()?;
/// # Ok::<(), accio_proto::ClientError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct ClientConfig {
    /// The dialect of the server.
    #[cfg_attr(feature = "serde", serde(with = "crate::text"))]
    pub dialect: Dialect,
    /// Time limit for name resolution and connecting.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::seconds"))]
    pub connect_timeout: Duration,
    /// Time limit for the whole handshake.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::seconds"))]
    pub handshake_timeout: Duration,
    /// How long an upload may make no progress.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::seconds"))]
    pub stall_timeout: Duration,
    /// Time limit for the server's confirmation.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::seconds"))]
    pub confirm_timeout: Duration,
    /// Time limit for one whole upload; `None` is unlimited.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::text::seconds::option", skip_serializing_if = "Option::is_none")
    )]
    pub transfer_timeout: Option<Duration>,
    /// The family of the host's addresses that may be used.
    pub family: Family,
    /// The address of this machine to connect from; `None` lets the system choose.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub source_address: Option<SocketAddr>,
    /// Maximum rate in bytes of content per second; `None` is unlimited.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub rate_limit: Option<NonZeroU64>,
    /// The algorithm of a digest of the content.
    #[cfg(feature = "digest")]
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::text::option", skip_serializing_if = "Option::is_none")
    )]
    pub digest: Option<DigestAlgorithm>,
}

impl Default for ClientConfig {
    /// Returns the settings of a builder on which nothing was set.
    fn default() -> Self {
        ClientConfig {
            dialect: Dialect::default(),
            connect_timeout: limits::CONNECT_TIMEOUT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            stall_timeout: limits::STALL_TIMEOUT,
            confirm_timeout: limits::CONFIRM_TIMEOUT,
            transfer_timeout: None,
            family: Family::default(),
            source_address: None,
            rate_limit: None,
            #[cfg(feature = "digest")]
            digest: None,
        }
    }
}

impl ClientConfig {
    /// Checks the values, as [`build`](super::ClientBuilder::build) does.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::Limit`] if a time limit is zero or above [`limits::MAX_TIMEOUT`].
    pub fn validate(&self) -> Result<(), ClientError> {
        let transfer_timeout = self.transfer_timeout.map(|limit| ("transfer_timeout", limit));
        let limits = [
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("stall_timeout", self.stall_timeout),
            ("confirm_timeout", self.confirm_timeout),
        ];
        for (name, value) in limits.into_iter().chain(transfer_timeout) {
            if value.is_zero() || value > limits::MAX_TIMEOUT {
                return Err(ClientError::Limit { name, value });
            }
        }
        Ok(())
    }
}
