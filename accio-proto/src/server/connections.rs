//! What both ways of serving share: the sink, the settings, who gets which number, what is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::config::Config;
use super::handle::Controls;
use super::limit_log::{LimitLog, is_own_limit};
use super::outcome::Outcome;
use super::proxy_protocol::{Arrival, Arriving};
use crate::copier::Copier;
use crate::fast_path::FastPaths;
use crate::session::{Abort, Ended, Session, SessionLimits, Turn, Unreleased};
use crate::sink::FileSink;
use crate::socket::{Interest, Socket, TcpSocket};

/// The state of a server, however it serves.
pub(super) struct Service<K: FileSink> {
    pub(super) sink: K,
    pub(super) config: Config,
    pub(super) paths: Arc<FastPaths>,
    pub(super) controls: Arc<Controls>,
    /// The number of the next connection. Numbers follow the order of acceptance, for only whoever
    /// accepts adds to it, one at a time; behind a proxy, the order in which headers are complete.
    next_id: AtomicU64,
    /// Whether the last attempt to accept found no room; said once, not ten times a second.
    resting: AtomicBool,
    limit_log: LimitLog,
}

/// A connection from its accept on.
pub(super) enum Guest<K: FileSink> {
    /// Its proxy has yet to say whom it is for.
    Arriving(Arrival),
    /// It has a number.
    Serving(Session<TcpSocket, K::File>, About),
}

/// Where a connection is after its turn.
pub(super) enum Visit<K: FileSink> {
    /// It waits for its socket, or has had its share and waits for its next turn.
    Waiting(Guest<K>),
    /// It is over.
    Over(Over),
}

/// A connection that is over, which nobody knows yet: [`Service::end`] is to follow.
#[must_use]
pub(super) struct Over(Kind);

enum Kind {
    /// The file is kept, or the error marker.
    Ended(Ended<TcpSocket>, About),
    /// It was reset before it had a number.
    Refused(TcpSocket),
    /// A proxy looked whether we are there.
    Checked(TcpSocket),
}

/// What the server knows of a connection beside its session.
#[derive(Clone, Copy)]
pub(super) struct About {
    peer: Option<SocketAddr>,
    /// When it got its number.
    since: Instant,
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
        let limit_log = LimitLog::default();
        Service { sink, config, paths, controls, next_id, resting, limit_log }
    }

    /// Takes a fresh connection in, or turns it away. [`greet`](Service::greet) is to follow.
    pub(super) fn receive(
        &self,
        socket: TcpSocket,
        peer: Option<SocketAddr>,
    ) -> Result<Guest<K>, Over> {
        if self.resting.swap(false, Ordering::Relaxed) {
            log::warn!("accepting connections again");
        }
        if self.config.proxy_protocol {
            let arrival = Arrival::new(socket, peer, &self.config, Instant::now());
            return Ok(Guest::Arriving(arrival));
        }
        self.number(socket, peer)
    }

    /// Sends a greeting where it is time for one.
    pub(super) fn greet(&self, guest: Guest<K>) -> Visit<K> {
        match guest {
            Guest::Arriving(_) => Visit::Waiting(guest),
            Guest::Serving(session, about) => match session.greet(&self.sink) {
                Turn::Waiting(mut session) => {
                    // However long it took us to greet, nobody was to say anything before that.
                    session.resume(about.since, Instant::now());
                    Visit::Waiting(Guest::Serving(session, about))
                }
                Turn::Ended(ended) => Visit::Over(Over(Kind::Ended(ended, about))),
            },
        }
    }

    /// The socket is ready.
    pub(super) fn handle_ready(&self, guest: Guest<K>, copier: &mut Copier) -> Visit<K> {
        self.take_turn(guest, copier, Session::handle_ready)
    }

    /// The deadline has come.
    pub(super) fn handle_timeout(&self, guest: Guest<K>, copier: &mut Copier) -> Visit<K> {
        self.take_turn(guest, copier, Session::handle_timeout)
    }

    /// Ends a connection early.
    pub(super) fn abort(&self, guest: Guest<K>, why: Abort) -> Over {
        Over(match guest {
            Guest::Arriving(arrival) => Kind::Refused(arrival.into_socket()),
            Guest::Serving(session, about) => Kind::Ended(session.abort(&self.sink, why), about),
        })
    }

    /// Nobody is accepted for a while.
    pub(super) fn rest(&self, why: std::fmt::Arguments<'_>) {
        if !self.resting.swap(true, Ordering::Relaxed) {
            log::warn!("accepting no connections for now: {why}");
        }
    }

    /// Tells the observer what became of a connection, then the peer: FIN when all is well, a reset
    /// when not. Before that, whoever watches the socket is to let go of it.
    pub(super) fn end(&self, over: Over, let_go: impl FnOnce(&TcpSocket)) {
        match over.0 {
            Kind::Ended(ended, about) => {
                let (socket, result) = self.report(ended, about);
                let_go(socket.socket());
                socket.release(result.is_ok());
                self.config.admission.leave(about.peer);
            }
            Kind::Refused(socket) => let_go(&socket),
            Kind::Checked(socket) => {
                let_go(&socket);
                socket.close();
            }
        }
    }

    fn report(
        &self,
        ended: Ended<TcpSocket>,
        about: About,
    ) -> (Unreleased<TcpSocket>, Result<(), Abort>) {
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
            Err(why) if is_own_limit(why) => {
                let line = format_args!("connection {id}: ERROR: {why} ({peer})");
                self.limit_log.log(why.code(), Instant::now(), line);
            }
            Err(why) if why.is_peer_fault() => log::info!("connection {id}: ERROR: {why} ({peer})"),
            Err(why) => log::warn!("connection {id}: ERROR: {why} ({peer})"),
        }
        self.controls.counters.ended(&outcome);
        (self.config.on_outcome)(&outcome);
        (ended.socket, outcome.result)
    }

    /// Gives a connection its number, or turns it away.
    fn number(&self, socket: TcpSocket, peer: Option<SocketAddr>) -> Result<Guest<K>, Over> {
        if let Err(why) = self.config.admission.admit(peer) {
            let line = format_args!("refused a connection from {}: {why}", Peer(peer));
            self.limit_log.log(why.limit(), Instant::now(), line);
            self.controls.counters.refused();
            return Err(Over(Kind::Refused(socket)));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.controls.counters.accepted();
        let now = Instant::now();
        log::debug!("connection {id}: accepted from {}", Peer(peer));
        let session = Session::begin(id, socket, self.config.dialect, now);
        Ok(Guest::Serving(session, About { peer, since: now }))
    }

    fn handle_arrival(&self, arrival: Arrival, now: Instant) -> Visit<K> {
        Visit::Over(match arrival.handle_ready(&self.config, now) {
            Arriving::Waiting(arrival) => return Visit::Waiting(Guest::Arriving(arrival)),
            Arriving::Arrived(socket, peer) => match self.number(socket, peer) {
                Ok(guest) => return self.greet(guest),
                Err(over) => over,
            },
            Arriving::Checked(socket) => {
                log::debug!("a proxy saw that the server is there");
                Over(Kind::Checked(socket))
            }
            Arriving::Refused(socket, proxy, why) => {
                let line = format_args!("refused a connection from {}: {why}", Peer(proxy));
                self.limit_log.log("proxy-protocol", Instant::now(), line);
                self.controls.counters.refused();
                Over(Kind::Refused(socket))
            }
        })
    }

    fn take_turn(&self, guest: Guest<K>, copier: &mut Copier, handle: Handle<K>) -> Visit<K> {
        let now = Instant::now();
        let (session, about) = match guest {
            Guest::Arriving(arrival) => return self.handle_arrival(arrival, now),
            Guest::Serving(session, about) => (session, about),
        };
        match handle(session, &self.sink, copier, &self.config.limits, now) {
            Turn::Waiting(mut session) => {
                if session.heard() == now {
                    // However long the sink took over these bytes, the peer was not silent.
                    session.resume(now, Instant::now());
                }
                Visit::Waiting(Guest::Serving(session, about))
            }
            Turn::Ended(ended) => Visit::Over(Over(Kind::Ended(ended, about))),
        }
    }
}

/// What a session does at an event.
type Handle<K> = fn(
    Session<TcpSocket, <K as FileSink>::File>,
    &K,
    &mut Copier,
    &SessionLimits,
    Instant,
) -> Turn<TcpSocket, <K as FileSink>::File>;

impl<K: FileSink> Guest<K> {
    pub(super) fn socket(&self) -> &TcpSocket {
        match self {
            Guest::Arriving(arrival) => arrival.socket(),
            Guest::Serving(session, _) => session.socket(),
        }
    }

    /// What the socket is to be watched for.
    pub(super) fn interest(&self) -> Interest {
        match self {
            Guest::Arriving(_) => Interest::Read,
            Guest::Serving(session, _) => session.interest(),
        }
    }

    /// When to call [`Service::handle_timeout`]; only ever moves later.
    pub(super) fn deadline(&self, config: &Config) -> Instant {
        match self {
            Guest::Arriving(arrival) => arrival.deadline(),
            Guest::Serving(session, _) => session.deadline(&config.limits),
        }
    }
}

/// A peer's address for the log.
struct Peer(Option<SocketAddr>);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("an unknown address"),
        }
    }
}
