//! Accepting connections.
//!
//! The workers accept connections, like any other event, so that a connection needs no hand-over
//! between threads. The front thread accepts at each tick whatever the workers have left, so that
//! no connection waits for busy workers, and after each pause.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::committer::Marker;
use super::listeners::arm;
use super::room::Answer;
use super::{Parking, Shared, lock};
use crate::program_log as log;
use crate::server::connection::Progress;
use crate::server::connections::arrivals::Decision;
use crate::server::listener::Accepted;
use crate::sink::FileSink;
use crate::socket::TcpSocket;
use crate::tuning::server::{ACCEPT_BATCH, ACCEPT_RETRY};

/// A pause that another event ends.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// The result of accepting a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batch {
    /// No connection is left.
    Empty,
    /// Further connections may be waiting.
    Full,
    /// No connection can be accepted until this time, or until a connection ends.
    Paused(Instant),
}

/// The result of an attempt to accept a connection.
enum Attempt {
    Accepted(TcpSocket, Option<SocketAddr>, Decision),
    /// No connection waits.
    Nothing,
    /// The connection failed before it was accepted.
    Failed,
    /// The system has no descriptors or memory left.
    Exhausted(io::Error),
    /// Connections must wait, for a place or because all numbers are used.
    Wait(Batch),
}

impl<K: FileSink> Shared<K> {
    /// Accepts a batch of connections in a worker.
    pub(super) fn accept(self: &Arc<Self>, token: u64) {
        let (batch, accepted) = self.accept_batch(token, self.forecast.batch());
        self.forecast.record(accepted);
        let is_armed = match batch {
            Batch::Empty | Batch::Full => {
                let socket = lock(&self.listeners).socket(token);
                // This comes after the unlock, because the next event may reach another worker immediately.
                socket.is_none_or(|socket| arm(&socket, &self.sessions, token).is_ok())
            }
            Batch::Paused(_) => false,
        };
        if !is_armed {
            // The front thread decides when to accept again.
            self.accepting_paused.store(true, Ordering::SeqCst);
            self.wake.raise();
        }
    }

    /// Accepts up to `size` connections from one socket; returns their number, too.
    pub(super) fn accept_batch(self: &Arc<Self>, token: u64, size: usize) -> (Batch, usize) {
        let (mut accepted, mut failed) = (0, 0);
        for _ in 0..size {
            let now = Instant::now();
            if let Some(pause) = self.must_pause(now) {
                return (pause, accepted);
            }
            match self.try_accept(token, now) {
                Attempt::Accepted(socket, peer, decision) => {
                    let progress = self.connections.receive(socket, peer, decision, now);
                    self.begin(progress);
                    accepted += 1;
                }
                Attempt::Nothing => return (Batch::Empty, accepted),
                Attempt::Failed => {
                    log::debug!("a connection failed before it was accepted");
                    self.connections.controls.counters.accept_error();
                    failed += 1;
                }
                Attempt::Exhausted(error) => {
                    self.connections.controls.counters.accept_error();
                    return (self.pause(now, format_args!("{error}")), accepted);
                }
                Attempt::Wait(batch) => return (batch, accepted),
            }
        }
        if accepted == 0 && failed >= ACCEPT_BATCH {
            // The whole batch failed. Whatever the cause, retrying at full speed does not help.
            let why = format_args!("connections fail before they are accepted");
            return (self.pause(Instant::now(), why), accepted);
        }
        (Batch::Full, accepted)
    }

    /// Accepts a connection from one socket, unless connections must wait.
    ///
    /// The sockets are locked until the connection has its number, so that numbers follow the order of
    /// acceptance. Code of the program, such as its logger, is called only after that: a stop must not
    /// wait for it.
    fn try_accept(&self, token: u64, now: Instant) -> Attempt {
        let listeners = lock(&self.listeners);
        if self.connections.is_exhausted() {
            // All numbers are used, which does not change.
            return Attempt::Wait(Batch::Paused(now + LONG_PAUSE));
        }
        if !self.places.take() {
            return Attempt::Wait(self.wait_for_place(now));
        }
        let attempt = match listeners.accept(token) {
            Accepted::Connection(socket, peer) => {
                self.open.fetch_add(1, Ordering::SeqCst);
                self.unreported.fetch_add(1, Ordering::SeqCst);
                return Attempt::Accepted(socket, peer, self.connections.decide(peer, now));
            }
            Accepted::Nothing => Attempt::Nothing,
            Accepted::Failed => Attempt::Failed,
            Accepted::Exhausted(error) => Attempt::Exhausted(error),
        };
        self.places.give_back();
        attempt
    }

    /// Returns a pause if the sink may have no room for another file.
    fn must_pause(self: &Arc<Self>, now: Instant) -> Option<Batch> {
        let verdict = self.room.look(now);
        if verdict.ask {
            self.push_marker(Marker::Room);
        }
        match verdict.room {
            Answer::Yes => None,
            Answer::No => Some(self.pause(now, format_args!("no room for files"))),
            Answer::Soon(until) => Some(self.pause_until(until)),
        }
    }

    /// Logs why accepting is paused for a moment.
    fn pause(&self, now: Instant, why: std::fmt::Arguments<'_>) -> Batch {
        self.connections.pause(why);
        self.pause_until(now + ACCEPT_RETRY)
    }

    fn pause_until(&self, at: Instant) -> Batch {
        self.places.want();
        Batch::Paused(at)
    }

    /// Pauses accepting until a connection ends. The caller holds the lock of the listening sockets.
    fn wait_for_place(&self, now: Instant) -> Batch {
        self.places.want();
        match self.places.is_free() {
            // A connection ended before the request for a wake-up was visible.
            true => Batch::Paused(now),
            false => Batch::Paused(now + LONG_PAUSE),
        }
    }

    /// Starts serving a new connection.
    fn begin(self: &Arc<Self>, progress: Progress<K>) {
        let connection = match progress {
            Progress::Waiting(connection) => connection,
            Progress::Unnumbered(refused) => {
                let wanted = self.places.leave();
                refused.close();
                self.unreported.fetch_sub(1, Ordering::SeqCst);
                return self.closed(wanted);
            }
            // A new connection is either in service or refused.
            Progress::Ended(_) => return,
        };
        let Some(key) = self.slots.reserve(connection.info()) else {
            // Cannot happen: the table has a slot for every place.
            log::error!("no slot for a connection");
            return;
        };
        let greeted = self.connections.greet(connection);
        self.settle(key, greeted, Parking::First);
    }
}
