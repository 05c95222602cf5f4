//! Settings of a client.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::error::ClientError;
use super::event::{ClientEvent, EventObserver};
use super::family::Family;
use super::progress::ProgressObserver;
use crate::dialect::Dialect;
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::fast_path::FastPaths;
use crate::limits;

/// Everything that [`ClientBuilder`](super::ClientBuilder) sets.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) dialect: Dialect,
    pub(super) connect_timeout: Duration,
    pub(super) handshake_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) confirm_timeout: Duration,
    pub(super) transfer_timeout: Option<Duration>,
    pub(super) family: Family,
    pub(super) source_address: Option<SocketAddr>,
    pub(super) rate_limit: Option<NonZeroU64>,
    pub(super) fast_paths: Arc<FastPaths>,
    pub(super) on_progress: Option<Arc<ProgressObserver>>,
    pub(super) on_event: Option<Arc<EventObserver>>,
    #[cfg(feature = "digest")]
    pub(super) digest: Option<DigestAlgorithm>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            dialect: Dialect::default(),
            connect_timeout: limits::CONNECT_TIMEOUT,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            stall_timeout: limits::STALL_TIMEOUT,
            confirm_timeout: limits::CONFIRM_TIMEOUT,
            transfer_timeout: None,
            family: Family::default(),
            source_address: None,
            rate_limit: None,
            fast_paths: Arc::default(),
            on_progress: None,
            on_event: None,
            #[cfg(feature = "digest")]
            digest: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl Settings {
    /// Returns the error for an upload that takes longer than the transfer timeout.
    pub(super) fn too_long(&self, peer: Option<SocketAddr>, sent: u64) -> ClientError {
        let after = self.transfer_timeout.unwrap_or_default();
        ClientError::TransferTimeout { peer, sent, after }
    }

    /// Reports a step, if there is an observer.
    pub(super) fn report(&self, event: impl FnOnce() -> ClientEvent) {
        if let Some(report) = &self.on_event {
            report(&event());
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("dialect", &self.dialect)
            .field("connect_timeout", &self.connect_timeout)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("transfer_timeout", &self.transfer_timeout)
            .field("family", &self.family)
            .field("source_address", &self.source_address)
            .field("rate_limit", &self.rate_limit)
            .field("fast_paths", &self.fast_paths)
            .finish_non_exhaustive()
    }
}
