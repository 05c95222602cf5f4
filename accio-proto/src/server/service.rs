//! What both ways of serving share: the sink, the settings, who gets which number, what is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::{Config, Controls, Outcome};
use crate::fast_path::FastPaths;
use crate::session::{Abort, Ended, Session, TcpSocket, Unreleased};
use crate::sink::FileSink;

/// The state of a server, however it serves.
pub(super) struct Service<K: FileSink> {
    pub(super) sink: K,
    pub(super) config: Config,
    pub(super) paths: Arc<FastPaths>,
    pub(super) controls: Arc<Controls>,
    /// The number of the next connection. Only whoever accepts adds to it, one at a time, so
    /// numbers follow the order of acceptance.
    next_id: AtomicU64,
    /// Whether the last attempt to accept found no room; said once, not ten times a second.
    resting: AtomicBool,
}

/// What the server knows of a connection beside its session.
#[derive(Clone, Copy)]
pub(super) struct About {
    pub(super) peer: Option<SocketAddr>,
    /// When it was accepted.
    pub(super) since: Instant,
}

impl<K: FileSink> Service<K> {
    pub(super) fn new(
        sink: K,
        config: Config,
        paths: FastPaths,
        controls: Arc<Controls>,
    ) -> Service<K> {
        let next_id = AtomicU64::new(config.first_id);
        let (paths, resting) = (Arc::new(paths), AtomicBool::new(false));
        Service { sink, config, paths, controls, next_id, resting }
    }

    /// Whether a fresh connection may stay; if so, [`leave`](Service::leave) is to follow.
    pub(super) fn admit(&self, peer: Option<SocketAddr>) -> bool {
        let admitted = self.config.admission.admit(peer);
        if let Err(why) = &admitted {
            log::info!("refused a connection from {}: {why}", Peer(peer));
            self.controls.counters.refused();
        }
        admitted.is_ok()
    }

    /// Numbers a connection; nothing is sent yet.
    pub(super) fn begin(
        &self,
        socket: TcpSocket,
        peer: Option<SocketAddr>,
    ) -> (Session<TcpSocket, K::File>, About) {
        if self.resting.swap(false, Ordering::Relaxed) {
            log::warn!("accepting connections again");
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.controls.counters.accepted();
        let now = Instant::now();
        log::debug!("connection {id}: accepted from {}", Peer(peer));
        (Session::begin(id, socket, self.config.dialect, now), About { peer, since: now })
    }

    /// Nobody is accepted for a while.
    pub(super) fn rest(&self, why: std::fmt::Arguments<'_>) {
        if !self.resting.swap(true, Ordering::Relaxed) {
            log::warn!("accepting no connections for now: {why}");
        }
    }

    /// Ends a session early.
    pub(super) fn abort(
        &self,
        session: Session<TcpSocket, K::File>,
        why: Abort,
    ) -> Ended<TcpSocket> {
        session.abort(&self.sink, why)
    }

    /// Tells the observer what became of a connection. The peer is to be told next, by
    /// [`Farewell::say`].
    pub(super) fn report(&self, ended: Ended<TcpSocket>, about: About) -> Farewell {
        let outcome = Outcome {
            id: ended.id,
            peer: about.peer,
            dialect: ended.dialect,
            bytes: ended.bytes,
            duration: about.since.elapsed(),
            result: ended.result,
            unmarked: ended.unmarked,
        };
        let (id, peer, bytes) = (outcome.id, Peer(about.peer), outcome.bytes);
        match &outcome.result {
            Ok(()) => log::info!("connection {id}: {bytes} bytes from {peer}"),
            Err(why) if why.is_peers() => log::info!("connection {id}: ERROR: {why} ({peer})"),
            Err(why) => log::warn!("connection {id}: ERROR: {why} ({peer})"),
        }
        self.controls.counters.ended(&outcome);
        (self.config.on_outcome)(&outcome);
        Farewell { socket: ended.socket, kept: outcome.result.is_ok() }
    }

    /// A connection that was admitted is gone.
    pub(super) fn leave(&self, peer: Option<SocketAddr>) {
        self.config.admission.leave(peer);
    }
}

/// The end of a connection that its peer has yet to hear of.
#[must_use]
pub(super) struct Farewell {
    socket: Unreleased<TcpSocket>,
    kept: bool,
}

impl Farewell {
    pub(super) fn socket(&self) -> &TcpSocket {
        self.socket.socket()
    }

    /// FIN for a file that is kept, a reset for any other.
    pub(super) fn say(self) {
        self.socket.release(self.kept);
    }
}

/// A peer's address for the log.
pub(super) struct Peer(pub(super) Option<SocketAddr>);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("an unknown address"),
        }
    }
}
