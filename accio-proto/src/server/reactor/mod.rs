//! The reactor: three kinds of threads that never wait for each other.
//!
//! - **Workers** accept and greet connections and move content, one event at a time. While some are
//!   blocked in the kernel, others are started, up to a limit.
//! - The **front** thread enforces time limits, and accepts the connections that no worker is free to
//!   accept. It touches no file and moves no content, so neither a slow disk nor a fast client can
//!   delay it.
//! - **Committers** make calls that may wait for the disk: they commit, abort and free files. A
//!   worker commits a small file itself if that is cheaper.
//!
//! A connection is always in exactly one place: parked in its slot, owned by one thread, or in the
//! queue of one lane.

mod accept;
mod committer;
mod deadlines;
mod discards;
mod front;
#[cfg(test)]
mod front_test;
mod lane;
#[cfg(test)]
mod life_model_test;
mod listeners;
#[cfg(test)]
mod model_test;
mod permit;
mod places;
mod reviewing;
mod room;
mod slots;
mod tuning;
mod watch;
mod worker;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::connection::{Connection, ConnectionInfo, Ending, Progress, Unnumbered};
use super::connections::{Connections, notify};
use super::error::ServerError;
use super::transport::ServerSocket;
use crate::copier::Copier;
use crate::panics::caught;
use crate::session::{Abort, Unreleased};
use crate::sink::FileSink;
use crate::sys::event_queue::Poller;
use crate::sys::signal::Signal;
use committer::Lanes;
use deadlines::Deadlines;
use front::Front;
use listeners::{Forecast, Listeners};
use permit::Permit;
use places::Places;
use room::Room;
use slots::{Key, Slots, Unparked};
use tuning::MAX_BLOCKED_WORKERS;
use watch::Watch;

/// Whether this system has an event queue.
pub(super) const IS_AVAILABLE: bool = true;

/// Tokens that do not belong to a slot. Slot indices are far below the lower half of these.
const HALT: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const DRAIN: u64 = u64::MAX - 2;
const WAKE: u64 = u64::MAX - 3;
/// The token of the first listening socket; the others follow in order.
const LISTENERS: u64 = u64::MAX - 0xffff;

/// A server in reactor mode.
pub(super) struct Reactor<K: FileSink> {
    front: Front<K>,
    workers: usize,
}

/// State shared by all threads of the reactor.
struct Shared<K: FileSink> {
    connections: Connections<K>,
    slots: Slots<Connection<K>, ConnectionInfo>,
    deadlines: Deadlines,
    places: Places,
    /// The event queue of the front thread: incomplete PROXY headers, signals.
    front: Poller,
    /// The event queue of the workers: listening sockets and sessions.
    sessions: Poller,
    /// Locked to accept a connection and to assign its number; see `try_accept`.
    listeners: Mutex<Listeners>,
    /// How many connections the next event of a listening socket is expected to announce.
    forecast: Forecast,
    /// Set by a worker that cannot accept connections; the front thread decides when to accept again.
    accepting_paused: AtomicBool,
    watch: Watch,
    lanes: Lanes<K>,
    room: Room,
    /// Wakes the front thread.
    wake: Signal,
    /// Ends the workers.
    halt: Signal,
    /// Set when no more connections are accepted, and the end of the last one ends the server.
    draining: AtomicBool,
    /// Set when every connection must be aborted.
    stopping: AtomicBool,
    /// Number of connections that have not been reported.
    unreported: AtomicUsize,
    /// Number of connections whose socket is still open.
    open: AtomicUsize,
    /// Number of workers inside a call that opens or commits a file.
    opening: AtomicUsize,
    /// Whether commits are collected in groups.
    groups: bool,
    /// Number of groups that are being committed.
    committing: AtomicUsize,
    /// Number of discarded files that are still open.
    discarding: AtomicUsize,
    /// The error that stops the server, if any.
    failure: Mutex<Option<io::Error>>,
}

/// Whether a connection's socket must be added to its event queue or armed again.
#[derive(Clone, Copy)]
enum Parking {
    First,
    Again,
}

impl<K: FileSink> Reactor<K> {
    pub(super) fn new(
        connections: Connections<K>,
        sockets: Vec<TcpListener>,
        workers: usize,
    ) -> io::Result<Self> {
        let max_connections = connections.config.max_connections;
        let groups = connections.sink.commits_in_groups();
        let sessions = Poller::new()?;
        let shared = Shared {
            slots: Slots::new(max_connections),
            deadlines: Deadlines::default(),
            places: Places::new(max_connections),
            front: Poller::new()?,
            listeners: Mutex::new(Listeners::new(sockets, LISTENERS, &sessions)?),
            forecast: Forecast::default(),
            accepting_paused: AtomicBool::new(false),
            sessions,
            watch: Watch::new(workers + MAX_BLOCKED_WORKERS),
            lanes: Lanes::new(groups),
            room: Room::default(),
            wake: Signal::new()?,
            halt: Signal::new()?,
            draining: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            unreported: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            opening: AtomicUsize::new(0),
            groups,
            committing: AtomicUsize::new(0),
            discarding: AtomicUsize::new(0),
            failure: Mutex::new(None),
            connections,
        };
        let controls = &shared.connections.controls;
        shared.front.add_level(&controls.stop, STOP)?;
        shared.front.add_level(&controls.drain, DRAIN)?;
        shared.front.add_level(&shared.wake, WAKE)?;
        shared.sessions.add_level(&shared.halt, HALT)?;
        Ok(Reactor { front: Front::new(Arc::new(shared)), workers })
    }

    /// Serves until the server is stopped. The calling thread becomes the front thread.
    pub(super) fn run(mut self) -> Result<(), ServerError> {
        let started = self.front.start(self.workers).map_err(ServerError::Start);
        let served = started.and_then(|()| self.front.serve().map_err(ServerError::Serve));
        self.front.shut_down();
        let failure = std::mem::take(&mut *lock(&self.front.shared.failure));
        served.and(failure.map_or(Ok(()), |error| Err(ServerError::Serve(error))))
    }
}

impl<K: FileSink> Shared<K> {
    /// Gives a connection that the caller owns its turn. Runs in a worker or a committer.
    fn take_turn(
        self: &Arc<Self>,
        key: Key,
        connection: Connection<K>,
        copier: &mut Copier,
        permit: Option<Permit<'_>>,
    ) {
        let info = connection.info();
        let turn = || self.connections.take_turn(connection, copier);
        match caught(turn) {
            Some(progress) => {
                self.describe(key, info, &progress);
                match progress {
                    Progress::Ended(ending) if ending.closing.is_complete() => {
                        match self.connections.reviews() {
                            true => self.push_review(key, ending),
                            false => self.commit(key, ending, permit),
                        }
                    }
                    progress => self.settle(key, progress, Parking::Again),
                }
            }
            None => self.lose(key, info),
        }
    }

    /// Records the number of a connection that has just been assigned one.
    fn describe(&self, key: Key, before: Option<ConnectionInfo>, progress: &Progress<K>) {
        let info = match progress {
            Progress::Waiting(connection) => connection.info(),
            Progress::Ended(ending) => Some(ending.info),
            Progress::Unnumbered(_) => None,
        };
        if before.is_none()
            && let Some(info) = info
        {
            self.slots.describe(key, info);
        }
    }

    /// Parks a connection, or ends it.
    fn settle(self: &Arc<Self>, key: Key, progress: Progress<K>, parking: Parking) {
        match progress {
            Progress::Waiting(connection) => self.park(key, connection, parking),
            Progress::Ended(ending) => self.push_ending(key, ending),
            Progress::Unnumbered(unnumbered) => self.end_unnumbered(key, unnumbered),
        }
    }

    fn park(self: &Arc<Self>, key: Key, connection: Connection<K>, parking: Parking) {
        let deadline = connection.deadline(&self.connections.config);
        let (token, interest) = (key.token(), connection.interest());
        let poller = if connection.is_arriving() { &self.front } else { &self.sessions };
        let parked = self.slots.park(key, connection, |connection| match parking {
            Parking::First => poller.add(connection.socket(), token, interest),
            Parking::Again => poller.arm(connection.socket(), token, interest),
        });
        match parked {
            Ok(queue) => {
                if queue && self.queue_deadline(deadline, key.index) {
                    self.wake.raise();
                }
                // The stop may have passed this slot already.
                if self.stopping.load(Ordering::SeqCst)
                    && let Some(connection) = self.slots.take(key)
                {
                    let aborted = self.connections.abort(connection, Abort::Shutdown);
                    self.settle(key, aborted, Parking::Again);
                }
            }
            Err(Unparked::Refused(connection, error)) => {
                let aborted = self.connections.abort(connection, Abort::System(error));
                self.settle(key, aborted, Parking::Again);
            }
            Err(Unparked::Abandoned(connection)) => drop(connection),
        }
    }

    /// Queues an entry for the deadline of a slot. Returns true if the front thread must be woken.
    ///
    /// The entry may outlive the connection, so it is never later than the first deadline of the
    /// next one, which with TLS comes earlier than those of a transfer.
    fn queue_deadline(&self, deadline: Instant, index: u32) -> bool {
        let latest = self.connections.first_deadline(Instant::now());
        self.deadlines.push(deadline.min(latest), index)
    }

    /// Commits or aborts a file, reports the connection and notifies its peer.
    fn finish(self: &Arc<Self>, key: Key, ending: Ending<K>) {
        let info = ending.info;
        let release = self.release(key, info);
        let claim = || self.slots.claim(key);
        let finish = || self.connections.finish_if(ending, &claim, release);
        let discarded = match caught(finish) {
            Some(Ok(discarded)) => {
                self.unreported.fetch_sub(1, Ordering::SeqCst);
                discarded
            }
            // The stop reports it. Freeing its content here would delay the markers of others.
            Some(Err(unclaimed)) => unclaimed,
            None => return self.lose(key, Some(info)),
        };
        if let Some(file) = discarded {
            self.push_discarded(file);
        }
    }

    /// Returns the function that notifies the peer once the connection is reported.
    ///
    /// It frees the connection's place before it closes the socket, so that a client that
    /// reconnects as soon as it sees the end is within the limits.
    fn release(
        self: &Arc<Self>,
        key: Key,
        info: ConnectionInfo,
    ) -> impl FnOnce(Unreleased<ServerSocket>, bool) + Send + use<K> {
        let shared = Arc::clone(self);
        move |socket, kept| {
            // The socket leaves the event queue before it is closed: see `Poller::remove`.
            shared.sessions.remove(socket.socket());
            shared.connections.leave(&socket, info.peer);
            let wanted = shared.vacate(key);
            // From here on, the slot may be that of another connection, so a panic must not `lose` it.
            notify(socket, kept, info.id);
            shared.closed(wanted);
        }
    }

    fn end_unnumbered(&self, key: Key, unnumbered: Unnumbered) {
        // The front thread watches it during a PROXY header, the workers during a TLS handshake.
        self.front.remove(unnumbered.socket());
        self.sessions.remove(unnumbered.socket());
        let wanted = self.vacate(key);
        unnumbered.close();
        self.unreported.fetch_sub(1, Ordering::SeqCst);
        self.closed(wanted);
    }

    /// Ends a connection whose session was lost because this library panicked.
    fn lose(&self, key: Key, info: Option<ConnectionInfo>) {
        if self.slots.claim(key) {
            self.connections.lose_after_panic(info);
            self.unreported.fetch_sub(1, Ordering::SeqCst);
        }
        if self.slots.release(key) {
            let wanted = self.places.leave();
            self.closed(wanted);
        }
    }

    /// Frees the slot and the place of a connection. Returns whether the front thread waits for the
    /// place.
    fn vacate(&self, key: Key) -> bool {
        self.slots.release(key) && self.places.leave()
    }

    /// Records that a socket is closed.
    fn closed(&self, wanted: bool) {
        let left = self.open.fetch_sub(1, Ordering::SeqCst) - 1;
        if wanted || (left == 0 && self.draining.load(Ordering::SeqCst)) {
            self.wake.raise();
        }
    }

    /// Stops the server because of an error.
    fn fail(&self, error: io::Error) {
        lock(&self.failure).get_or_insert(error);
        self.connections.controls.stop.raise();
    }
}

/// Every change under these locks is one assignment, so the state is consistent even if another
/// thread panics.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread that shares the server.
fn spawn<K: FileSink>(
    name: String,
    shared: &Arc<Shared<K>>,
    work: impl FnOnce(Arc<Shared<K>>) + Send + 'static,
) -> io::Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name(name).spawn(move || work(shared)).map(drop)
}
