//! Settings of a client.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::config::ClientConfig;
use super::error::ClientError;
use super::event::{ClientEvent, EventObserver};
use super::progress::ProgressObserver;
use crate::fast_path::FastPaths;

/// Everything that [`ClientBuilder`](super::ClientBuilder) sets.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) config: ClientConfig,
    pub(super) fast_paths: Arc<FastPaths>,
    pub(super) on_progress: Option<Arc<ProgressObserver>>,
    pub(super) on_event: Option<Arc<EventObserver>>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Settings {
    /// Returns the error for an upload that takes longer than the transfer timeout.
    pub(super) fn too_long(&self, peer: Option<SocketAddr>, sent: u64) -> ClientError {
        let after = self.config.transfer_timeout.unwrap_or_default();
        ClientError::TransferTimeout { peer, sent, end_sent: false, after }
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
            .field("config", &self.config)
            .field("fast_paths", &self.fast_paths)
            .finish_non_exhaustive()
    }
}
