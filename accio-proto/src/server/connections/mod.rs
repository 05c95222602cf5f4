//! State shared by both threading modes: the sink, the configuration, numbering and reporting.
#![cfg_attr(
    not(feature = "tls"),
    allow(clippy::useless_conversion, reason = "the server's socket is a TCP socket then")
)]

pub(super) mod arrivals;
mod reports;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Instant;

use super::config::Config;
use super::connection::{Connection, ConnectionInfo, Ending, Progress, Unnumbered};
#[cfg(feature = "tracing")]
use super::connection_span::ConnectionSpan;
use super::handle::Controls;
use super::limit_log::LimitLog;
use super::review::{Decide, DescriptorSource, Review};
#[cfg(feature = "tls")]
use super::tls_handshake::Securing;
use super::transport::ServerSocket;
use crate::copier::Copier;
use crate::fast_path::FastPaths;
use crate::panics::caught;
use crate::pipe_budget::PipeBudget;
use crate::program_log as log;
use crate::session::{Abort, Closing, Turn, Unreleased};
use crate::sink::FileSink;

/// The state of a server, in either mode.
pub(super) struct Connections<K: FileSink> {
    pub(super) sink: K,
    pub(super) config: Config,
    paths: Arc<FastPaths>,
    pipes: Arc<PipeBudget>,
    pub(super) controls: Arc<Controls>,
    /// The number of the next connection. Only one thread accepts at a time, so numbers follow the
    /// order of acceptance; with TLS or behind a proxy, that in which handshakes or headers are
    /// complete.
    next_id: AtomicU64,
    /// Whether the last possible number has been assigned.
    exhausted: AtomicBool,
    /// Whether accepting is paused; used to log the pause only once.
    paused: AtomicBool,
    /// Whether the sink knows that the server stops.
    stopping: Once,
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
            pipes: PipeBudget::new(config.max_pipes),
            controls,
            next_id: AtomicU64::new(config.first_id),
            exhausted: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            stopping: Once::new(),
            limit_log: LimitLog::default(),
            config,
        }
    }

    /// Returns a copier for the turns of any number of connections.
    pub(super) fn copier(&self) -> Copier {
        Copier::with_pipes(Arc::clone(&self.paths), Arc::clone(&self.pipes))
    }

    /// Sends the greeting, if it is due.
    pub(super) fn greet(&self, connection: Connection<K>) -> Progress<K> {
        match connection {
            Connection::Arriving(_) => Progress::Waiting(connection),
            #[cfg(feature = "tls")]
            Connection::Securing(_) => Progress::Waiting(connection),
            Connection::Serving(mut session, info) => {
                // Encrypting may call code of the program, and the caller may not know the number yet.
                let greeted = caught(|| session.greet()).unwrap_or_else(|| {
                    log::error!(
                        "connection {}: cannot send the greeting: please report the panic",
                        info.id
                    );
                    Turn::Ended(Err(panicked()))
                });
                match greeted {
                    Turn::Waiting => {
                        // However late its greeting is, the client could not send anything before.
                        session.resume(info.since, Instant::now());
                        Progress::Waiting(Connection::Serving(session, info))
                    }
                    Turn::Ended(result) => self.end(session.close(result), info),
                }
            }
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
        let span = self.controls.in_progress.span(info.place);
        #[cfg(feature = "tracing")]
        let _in_span = span.as_deref().map(ConnectionSpan::enter);
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
            Connection::Securing(securing) => self.fail_handshake(securing.expire(Instant::now())),
            serving => self.abort(serving, why),
        }
    }

    /// Returns the first deadline of a connection that is accepted now.
    pub(super) fn first_deadline(&self, now: Instant) -> Instant {
        #[cfg(feature = "tls")]
        if self.controls.has_tls() {
            return Securing::first_deadline(&self.config.limits, now);
        }
        self.config.limits.first_deadline(now)
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
        if caught(|| reviewer(review)).is_none() {
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

    /// Tells the sink that the server stops, if this is the first call. The sink knows it when this
    /// returns.
    pub(super) fn stopping(&self) {
        self.stopping.call_once(|| {
            if caught(|| self.sink.stopping()).is_none() {
                log::error!("the sink panicked when the server stopped");
            }
        });
    }

    /// Returns whether the sink has room for another file. If it panics, accepting continues.
    pub(super) fn has_room(&self) -> bool {
        caught(|| self.sink.has_room()).unwrap_or(true)
    }

    /// Lets the sink do work that no connection waits for.
    pub(super) fn tidy(&self) {
        if caught(|| self.sink.tidy()).is_none() {
            log::error!("the sink panicked while it tidied up");
        }
    }

    /// Stops counting a connection, calls `released`, notifies the peer, and then drops the result of
    /// the call.
    pub(super) fn release<T>(
        &self,
        socket: Unreleased<ServerSocket>,
        kept: bool,
        info: ConnectionInfo,
        released: impl FnOnce() -> T,
    ) {
        self.leave(&socket, info.peer);
        let notified = released();
        notify(socket, kept, info.id);
        drop(notified);
    }

    /// Stops counting a connection against the limits. This comes first, so that a client that
    /// reconnects as soon as it sees the end is within the limits.
    pub(super) fn leave(&self, socket: &Unreleased<ServerSocket>, peer: Option<SocketAddr>) {
        self.config.admission.leave(peer);
        #[cfg(feature = "tls")]
        self.config.identities.leave(socket.socket().identity());
        #[cfg(not(feature = "tls"))]
        let _ = socket;
    }
}

/// Notifies the peer. A panic must affect neither the thread of a recorder, which may call this, nor the
/// next connection with the same slot.
pub(super) fn notify(socket: Unreleased<ServerSocket>, kept: bool, id: u64) {
    if caught(|| socket.release(kept)).is_none() {
        log::error!("connection {id}: cannot notify the peer: please report the panic");
    }
}

/// Returns the reason why a connection ends after a panic.
fn panicked() -> Abort {
    Abort::System(std::io::Error::other("the server panicked"))
}
