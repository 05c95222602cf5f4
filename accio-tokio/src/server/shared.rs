//! State shared by the tasks of a server.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use accio_proto::driver::Driver;
use accio_proto::{FileSink, ServerError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::copiers::Copiers;

/// State shared by the tasks of a server.
pub(super) struct Shared<K: FileSink, C> {
    pub(super) driver: Driver<K>,
    pub(super) calls: C,
    pub(super) copiers: Copiers,
    /// One permit for each connection that may be in service.
    pub(super) places: Arc<Semaphore>,
    pub(super) phase: watch::Sender<Phase>,
    /// Number of files that were discarded since the sink began to tidy up.
    pub(super) discarded: AtomicUsize,
}

/// The place of a connection in service.
pub(super) struct Place {
    pub(super) permit: OwnedSemaphorePermit,
    /// The server counts as drained when all of these are dropped.
    pub(super) open: mpsc::Sender<()>,
}

impl Place {
    /// Frees the place. The returned value must be dropped after the peer was notified.
    pub(super) fn free(place: Option<Place>) -> Option<mpsc::Sender<()>> {
        place.map(|Place { permit, open }| {
            drop(permit);
            open
        })
    }
}

/// The phase of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Accepting,
    Draining,
    Stopping,
}

/// Waits until the server is in one of these phases.
pub(super) async fn wait_for(phase: &mut watch::Receiver<Phase>, stops: impl Fn(Phase) -> bool) {
    // The sender lives as long as the tasks that wait.
    let _ = phase.wait_for(|phase| stops(*phase)).await;
}

/// A future of the server, to be spawned.
pub(super) trait Task: Future<Output = Result<(), ServerError>> + Send + 'static {}

impl<T: Future<Output = Result<(), ServerError>> + Send + 'static> Task for T {}
