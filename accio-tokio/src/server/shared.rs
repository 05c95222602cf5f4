//! State shared by the tasks of a server.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use accio_proto::driver::{Driver, Ending, Live};
use accio_proto::{FileSink, ServerError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Sleep;

use super::copiers::Copiers;
use super::groups::Groups;
use super::turn_queue::TurnQueue;
use crate::registration::Registration;

/// State shared by the tasks of a server.
pub(super) struct Shared<K: FileSink, C> {
    pub(super) driver: Driver<K>,
    pub(super) calls: C,
    pub(super) copiers: Copiers,
    /// Turns that wait for a thread. They do not refer to this value: a runtime that is dropped must
    /// drop them with it.
    pub(super) turns: TurnQueue<(Live<K>, Belongings)>,
    /// Files whose commits are faster together.
    pub(super) commits: Groups<Finishing<K>>,
    /// One permit for each connection that may be in service.
    pub(super) places: Arc<Semaphore>,
    pub(super) phase: watch::Sender<Phase>,
    /// Number of files that were discarded since the sink began to tidy up.
    pub(super) discarded: AtomicUsize,
}

/// Everything that belongs to a connection in service, except for its session.
pub(super) struct Belongings {
    pub(super) phase: watch::Receiver<Phase>,
    /// Dropped before the socket.
    pub(super) registration: Option<Registration>,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) place: Place,
    pub(super) unreported: Unreported,
}

/// A connection whose file must be committed or aborted.
pub(super) struct Finishing<K: FileSink> {
    pub(super) ending: Ending<K>,
    pub(super) place: Place,
    pub(super) unreported: Unreported,
}

/// The place of a connection in service.
pub(super) struct Place {
    /// Shared by the connection and its file: a discarded file may be open for longer.
    pub(super) permit: Arc<OwnedSemaphorePermit>,
    /// The server counts as drained when all of these are dropped.
    pub(super) open: mpsc::Sender<()>,
}

/// Held until a connection is reported: the server does not end before. Nothing is sent.
pub(super) type Unreported = mpsc::Sender<()>;

impl Place {
    /// Frees the place, unless a discarded file keeps it. The returned value must be dropped after the peer was notified.
    pub(super) fn free(self) -> mpsc::Sender<()> {
        let Place { permit, open } = self;
        drop(permit);
        open
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
