//! State shared by the tasks of a server.

use std::future::Future;
use std::sync::Arc;

use accio_proto::driver::Driver;
use accio_proto::{FileSink, ServerError};
use tokio::sync::{Semaphore, watch};

use super::copiers::Copiers;

/// State shared by the tasks of a server.
pub(super) struct Shared<K: FileSink, C> {
    pub(super) driver: Driver<K>,
    pub(super) calls: C,
    pub(super) copiers: Copiers,
    /// One permit for each connection that may be in service.
    pub(super) places: Arc<Semaphore>,
    pub(super) max_connections: u32,
    pub(super) phase: watch::Sender<Phase>,
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
