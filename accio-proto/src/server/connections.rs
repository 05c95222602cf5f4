//! State shared by both threading modes: the sink, the configuration, numbering and reporting.
#![cfg_attr(
    not(feature = "tls"),
    allow(clippy::useless_conversion, reason = "the server's socket is a TCP socket then")
)]

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::acknowledgement::Acknowledgement;
use super::config::Config;
use super::connection::{Connection, ConnectionInfo, Ending, Peer, Progress, Unnumbered};
use super::handle::Controls;
use super::in_progress::Place;
use super::limit_log::{LimitLog, is_operators_rule};
use super::outcome::Outcome;
use super::proxy_protocol::{Arrival, Arriving};
use super::review::{Decide, DescriptorSource, Review};
#[cfg(feature = "tls")]
use super::tls_handshake::{FailedHandshake, Handshake, Securing};
use super::transport::ServerSocket;
use crate::copier::Copier;
use crate::fast_path::FastPaths;
use crate::session::{Abort, Closing, Ended, Session, Turn, Unreleased};
use crate::sink::FileSink;
use crate::socket::TcpSocket;

/// The state of a server, in either mode.
pub(super) struct Connections<K: FileSink> {
    pub(super) sink: K,
    pub(super) config: Config,
    pub(super) paths: Arc<FastPaths>,
    pub(super) controls: Arc<Controls>,
    /// The number of the next connection. Only one thread accepts at a time, so numbers follow
    /// the order of acceptance or, behind a proxy, the order in which headers are complete.
    next_id: AtomicU64,
    /// Whether the last possible number has been assigned.
    exhausted: AtomicBool,
    /// Whether accepting is paused; used to log the pause only once.
    paused: AtomicBool,
    limit_log: LimitLog,
}

impl<K: FileSink> Connections<K> {
    pub(super) fn new(
        sink: K,
        config: Config,
        paths: FastPaths,
        controls: Arc<Controls>,
    ) -> Connections<K> {
        Connections {
            sink,
            paths: Arc::new(paths),
            controls,
            next_id: AtomicU64::new(config.first_id),
            exhausted: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            limit_log: LimitLog::default(),
            config,
        }
    }

    /// Admits or refuses a new connection. Call [`greet`](Connections::greet) next.
    pub(super) fn receive(
        &self,
        socket: TcpSocket,
        peer: Option<SocketAddr>,
        now: Instant,
    ) -> Progress<K> {
        if self.paused.load(Ordering::Relaxed) && self.paused.swap(false, Ordering::Relaxed) {
            log::warn!("accepting connections again");
        }
        if self.config.proxy_protocol {
            let arrival = Arrival::new(socket, peer, &self.config, now);
            return Progress::Waiting(Connection::Arriving(arrival));
        }
        self.admit(socket, peer, now)
    }

    /// Sends the greeting, if it is due.
    pub(super) fn greet(&self, connection: Connection<K>) -> Progress<K> {
        match connection {
            Connection::Arriving(_) => Progress::Waiting(connection),
            #[cfg(feature = "tls")]
            Connection::Securing(_) => Progress::Waiting(connection),
            Connection::Serving(mut session, info) => match session.greet() {
                Turn::Waiting => {
                    // However late its greeting is, the client could not send anything before.
                    session.resume(info.since, Instant::now());
                    Progress::Waiting(Connection::Serving(session, info))
                }
                Turn::Ended(result) => self.end(session.close(result), info),
            },
            Connection::Reviewing(_) => Progress::Waiting(connection),
        }
    }

    /// Receives more of a PROXY header, and greets the connection once the header is complete.
    pub(super) fn arrive(&self, connection: Connection<K>) -> Progress<K> {
        match connection {
            Connection::Arriving(arrival) => self.handle_arrival(arrival, Instant::now()),
            serving => Progress::Waiting(serving),
        }
    }

    /// Serves a connection whose socket is ready or whose deadline has passed.
    pub(super) fn take_turn(&self, connection: Connection<K>, copier: &mut Copier) -> Progress<K> {
        let now = Instant::now();
        let (mut session, info) = match connection {
            Connection::Arriving(arrival) => return self.handle_arrival(arrival, now),
            #[cfg(feature = "tls")]
            Connection::Securing(securing) => return self.secure(securing, now),
            Connection::Serving(session, info) => (session, info),
            Connection::Reviewing(_) => return Progress::Waiting(connection),
        };
        #[cfg(feature = "tracing")]
        let _in_span = self.controls.in_progress.span(info.place).entered();
        let limits = &self.config.limits;
        let turn = if session.deadline(limits) <= now {
            session.handle_timeout(&self.sink, copier, limits, now)
        } else {
            session.handle_ready(&self.sink, copier, limits, now)
        };
        match turn {
            Turn::Waiting => {
                if session.heard() == now {
                    // The peer was not idle while the sink was busy with its bytes.
                    session.resume(now, Instant::now());
                }
                let (bytes, dialect) = (session.bytes(), session.dialect());
                self.controls.in_progress.progress(info.place, bytes, dialect, session.heard());
                Progress::Waiting(Connection::Serving(session, info))
            }
            Turn::Ended(result) => self.end(session.close(result), info),
        }
    }

    /// Returns a connection whose session has ended.
    fn end(&self, closing: Closing<ServerSocket, K::File>, info: ConnectionInfo) -> Progress<K> {
        self.controls.in_progress.finishing(info.place, closing.bytes(), closing.dialect());
        Progress::Ended(Ending { closing, info })
    }

    /// Ends a connection early.
    pub(super) fn abort(&self, connection: Connection<K>, why: Abort) -> Progress<K> {
        match connection {
            Connection::Arriving(arrival) => {
                Progress::Unnumbered(Unnumbered::Refused(arrival.into_socket().into()))
            }
            #[cfg(feature = "tls")]
            Connection::Securing(securing) => match why {
                Abort::System(error) => {
                    let failure = crate::tls::HandshakeFailure::Lost(error);
                    self.fail_handshake(securing.fail(failure, Instant::now()))
                }
                _ => {
                    self.config.admission.leave(securing.peer());
                    Progress::Unnumbered(Unnumbered::Refused(securing.into_socket().into()))
                }
            },
            Connection::Serving(session, info) => self.end(session.abort(why), info),
            Connection::Reviewing(mut ending) => {
                ending.closing.fail(why);
                Progress::Ended(*ending)
            }
        }
    }

    /// Ends a connection that has exceeded a limit.
    pub(super) fn expire(&self, connection: Connection<K>, why: Abort) -> Progress<K> {
        match connection {
            Connection::Arriving(arrival) => self.handle_arrival(arrival, Instant::now()),
            #[cfg(feature = "tls")]
            Connection::Securing(securing) => self.secure(securing, Instant::now()),
            serving => self.abort(serving, why),
        }
    }

    /// Returns whether complete files are reviewed before their commit.
    pub(super) fn reviews(&self) -> bool {
        self.config.reviewer.is_some()
    }

    /// Returns the review of a complete file.
    pub(super) fn review(
        &self,
        ending: &Ending<K>,
        source: DescriptorSource,
        decide: Decide,
    ) -> Review {
        let closing = &ending.closing;
        Review {
            connection: closing.connection().clone(),
            bytes: closing.bytes(),
            digest: closing.digest(),
            source,
            decide: Some(decide),
        }
    }

    /// Passes a review to the reviewer.
    pub(super) fn begin_review(&self, review: Review) {
        let Some(reviewer) = &self.config.reviewer else { return };
        let id = review.connection.id;
        // The review is dropped by a panic, which rejects the file.
        if catch_unwind(AssertUnwindSafe(|| reviewer(review))).is_err() {
            log::error!("connection {id}: the reviewer panicked");
        }
    }

    /// Logs that accepting is paused.
    pub(super) fn pause(&self, why: std::fmt::Arguments<'_>) {
        if !self.paused.swap(true, Ordering::Relaxed) {
            log::warn!("accepting no connections for now: {why}");
        }
    }

    /// Returns whether all numbers have been used.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Commits or aborts the file of a connection, then [reports](Connections::report) it.
    pub(super) fn finish(
        &self,
        ending: Ending<K>,
        release: impl FnOnce(Unreleased<ServerSocket>, bool) + Send + 'static,
    ) -> Option<K::File> {
        #[cfg(feature = "tracing")]
        let _in_span = self.controls.in_progress.span(ending.info.place).entered();
        let ended = ending.closing.finish(&self.sink);
        self.report(ended, ending.info, release)
    }

    /// Reports a finished connection to the log, the counters and the observer. The recorder then
    /// decides when `release` notifies the peer; without a recorder, that happens at once.
    ///
    /// Returns the discarded file, which should be dropped where that delays no connection.
    pub(super) fn report(
        &self,
        ended: Ended<ServerSocket, K::File>,
        info: ConnectionInfo,
        release: impl FnOnce(Unreleased<ServerSocket>, bool) + Send + 'static,
    ) -> Option<K::File> {
        let Ended { connection, bytes, digest, result, unmarked, socket, discarded, .. } = ended;
        let kept = result.is_ok();
        let duration = info.since.elapsed();
        let outcome = Outcome {
            connection,
            bytes,
            digest,
            duration,
            ended: SystemTime::now(),
            result,
            unmarked,
        };
        self.record(outcome, info.place, move || release(socket, kept));
        discarded
    }

    /// Ends a connection whose session is stuck in another thread when the server stops: writes the
    /// error marker and reports the connection. The peer sees a reset when the process ends.
    pub(super) fn abandon(&self, info: ConnectionInfo) {
        let known = self.controls.in_progress.describe(info.place, info.id);
        let connection = known.unwrap_or_else(|| {
            let mut connection = crate::Connection::new(info.id);
            connection.peer = info.peer;
            connection
        });
        let marked = catch_unwind(AssertUnwindSafe(|| self.sink.mark(&connection)))
            .unwrap_or_else(|_| Err(std::io::Error::other("the sink panicked")));
        let unmarked = marked.err().inspect(|error| {
            log::error!("connection {}: cannot keep the error marker: {error}", info.id);
        });
        let outcome = Outcome {
            connection,
            bytes: 0,
            digest: None,
            duration: info.since.elapsed(),
            ended: SystemTime::now(),
            result: Err(Abort::Shutdown),
            unmarked,
        };
        self.record(outcome, info.place, || {});
    }

    fn record(&self, outcome: Outcome, place: Place, release: impl FnOnce() + Send + 'static) {
        let (id, bytes) = (outcome.connection.id, outcome.bytes);
        let peer = Peer(outcome.connection.peer);
        match &outcome.result {
            Ok(()) => log::info!("connection {id}: {bytes} bytes from {peer}"),
            Err(why) if is_operators_rule(why) => {
                let line = format_args!("connection {id}: ERROR: {why} ({peer})");
                self.limit_log.log(why.code(), Instant::now(), line);
            }
            Err(why) if why.is_peer_fault() => log::info!("connection {id}: ERROR: {why} ({peer})"),
            Err(why) => log::warn!("connection {id}: ERROR: {why} ({peer})"),
        }
        #[cfg(feature = "tracing")]
        let span = {
            let span = self.controls.in_progress.span(place);
            if let Some(dialect) = outcome.connection.dialect {
                span.record("dialect", dialect.name());
            }
            span.record("bytes", bytes);
            span.record(
                "outcome",
                outcome.result.as_ref().map_or_else(Abort::code, |()| "complete"),
            );
            span
        };
        #[cfg(feature = "tracing")]
        let _in_span = span.enter();
        self.controls.counters.ended(&outcome);
        let observed = catch_unwind(AssertUnwindSafe(|| (self.config.on_outcome)(&outcome)));
        if observed.is_err() {
            log::error!("connection {id}: the observer panicked");
        }
        // This comes after the report, so that an observer never misses a connection in both lists.
        self.controls.in_progress.leave(place, id);
        match &self.config.recorder {
            None => release(),
            Some(recorder) => {
                let acknowledgement = Acknowledgement::new(release);
                let recorded =
                    catch_unwind(AssertUnwindSafe(|| recorder(outcome, acknowledgement)));
                if recorded.is_err() {
                    log::error!("connection {id}: the recorder panicked");
                }
            }
        }
    }

    /// Tells the sink that the server stops.
    pub(super) fn stopping(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.sink.stopping())).is_err() {
            log::error!("the sink panicked when the server stopped");
        }
    }

    /// Stops counting a connection against the limits. This comes first, so that a client that
    /// reconnects as soon as it sees the end is within the limits.
    pub(super) fn leave(&self, socket: &Unreleased<ServerSocket>, peer: Option<SocketAddr>) {
        self.config.admission.leave(peer);
        #[cfg(feature = "tls")]
        self.config.identities.leave(socket.socket());
        #[cfg(not(feature = "tls"))]
        let _ = socket;
    }

    /// Admits or refuses a connection; an admitted one continues with its TLS handshake or its
    /// number.
    fn admit(&self, socket: TcpSocket, peer: Option<SocketAddr>, now: Instant) -> Progress<K> {
        if let Err(why) = self.config.admission.admit(peer, now) {
            let line = format_args!("refused a connection from {}: {why}", Peer(peer));
            self.limit_log.log(why.limit(), now, line);
            self.controls.counters.refused();
            return Progress::Unnumbered(Unnumbered::Refused(socket.into()));
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = self.controls.tls() {
            return match Securing::begin(socket, peer, tls, &self.config.limits, now) {
                Ok(securing) => Progress::Waiting(Connection::Securing(securing)),
                Err((socket, why)) => {
                    log::error!("cannot begin a TLS handshake: {why}");
                    self.config.admission.leave(peer);
                    self.controls.counters.refused();
                    Progress::Unnumbered(Unnumbered::Refused(socket.into()))
                }
            };
        }
        self.number(socket.into(), peer, now)
    }

    /// Continues a TLS handshake, and greets the connection once it is complete.
    #[cfg(feature = "tls")]
    fn secure(&self, securing: Box<Securing>, now: Instant) -> Progress<K> {
        let (socket, peer) = match securing.handle_ready(&self.config.identities, now) {
            Handshake::Waiting(securing) => {
                return Progress::Waiting(Connection::Securing(securing));
            }
            Handshake::Complete(socket, peer) => (socket, peer),
            failed => return self.fail_handshake(failed),
        };
        match self.number(socket, peer, now) {
            Progress::Waiting(connection) => self.greet(connection),
            refused => refused,
        }
    }

    /// Reports a failed TLS handshake.
    #[cfg(feature = "tls")]
    fn fail_handshake(&self, handshake: Handshake) -> Progress<K> {
        let Handshake::Failed(socket, failed) = handshake else {
            unreachable!("only called for a handshake that failed")
        };
        let FailedHandshake { peer, failure, .. } = &failed;
        log::info!("refused a connection from {}: {failure}", Peer(*peer));
        self.config.admission.leave(*peer);
        self.controls.counters.refused();
        let observe = AssertUnwindSafe(|| (self.config.on_handshake_failure)(&failed));
        if catch_unwind(observe).is_err() {
            log::error!("the observer of failed handshakes panicked");
        }
        Progress::Unnumbered(Unnumbered::Refused(socket.into()))
    }

    /// Assigns a number to an admitted connection, if one is left.
    fn number(&self, socket: ServerSocket, peer: Option<SocketAddr>, now: Instant) -> Progress<K> {
        let Some(id) = self.next_id() else {
            self.config.admission.leave(peer);
            #[cfg(feature = "tls")]
            self.config.identities.leave(&socket);
            self.controls.counters.refused();
            return Progress::Unnumbered(Unnumbered::Refused(socket));
        };
        self.controls.counters.accepted();
        log::debug!("connection {id}: accepted from {}", Peer(peer));
        let mut connection = crate::Connection::new(id);
        connection.peer = peer;
        connection.local = socket.local_addr();
        connection.identity = socket.identity().cloned();
        let session = Session::begin(connection, socket, self.config.dialect, now);
        #[cfg(feature = "digest")]
        let session = match self.config.digest {
            None => session,
            Some(algorithm) => session.digest(algorithm),
        };
        let place = self.controls.in_progress.enter(session.connection().clone(), now);
        let info = ConnectionInfo { id, peer, since: now, place };
        Progress::Waiting(Connection::Serving(session, info))
    }

    /// Returns the next number. After the last one the server accepts nothing, because a repeated
    /// number would replace a file.
    fn next_id(&self) -> Option<u64> {
        if self.is_exhausted() {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if id == u64::MAX {
            self.exhausted.store(true, Ordering::Relaxed);
            log::error!("connection {id} has the last number: accepting no more connections");
        }
        Some(id)
    }

    fn handle_arrival(&self, arrival: Arrival, now: Instant) -> Progress<K> {
        Progress::Unnumbered(match arrival.handle_ready(&self.config, now) {
            Arriving::Waiting(arrival) => return Progress::Waiting(Connection::Arriving(arrival)),
            Arriving::Arrived(socket, peer) => match self.admit(socket, peer, now) {
                Progress::Waiting(connection) => return self.greet(connection),
                refused => return refused,
            },
            Arriving::Checked(socket) => {
                log::debug!("a proxy checked the server");
                Unnumbered::Checked(socket.into())
            }
            Arriving::Refused(socket, proxy, why) => {
                let line = format_args!("refused a connection from {}: {why}", Peer(proxy));
                self.limit_log.log("proxy-protocol", Instant::now(), line);
                self.controls.counters.refused();
                Unnumbered::Refused(socket.into())
            }
        })
    }
}
