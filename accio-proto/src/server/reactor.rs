//! The reactor: workers that all wait on one event queue and serve whatever comes.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use super::deadlines::Deadlines;
use super::listener::{Accepted, Listeners};
use super::slots::{Due, Key, Slots};
use super::{Config, Controls, Outcome};
use crate::copier::Copier;
use crate::fast_path::FastPaths;
use crate::limits::{ACCEPT_BATCH, ACCEPT_RETRY};
use crate::session::Interest;
use crate::session::{Abort, Ended, Session, TcpSocket, Turn};
use crate::sink::FileSink;
use crate::sys::poll::Poller;

/// The tokens that are no slot's: slot indices are far below their lower half.
const ALARM: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const DRAIN: u64 = u64::MAX - 2;
/// The token of the first listening socket; the others follow.
const LISTENERS: u64 = u64::MAX - 0xffff;

/// The entry of the deadline queue that wakes the listening sockets.
const LISTENER_RETRY: u32 = u32::MAX;

/// What the workers share.
pub(super) struct Reactor<K: FileSink> {
    sink: K,
    config: Config,
    paths: Arc<FastPaths>,
    listeners: Listeners,
    poller: Poller,
    deadlines: Deadlines,
    slots: Slots<Connection<K>>,
    controls: Arc<Controls>,
    /// The number of the next connection. Only the worker with a listening socket's event adds to
    /// it, so numbers follow the order of acceptance.
    next_id: AtomicU64,
    /// No more connections are accepted; the end of the last one stops the server.
    draining: AtomicBool,
    /// The first slot that no worker has cleared yet when the server stops.
    cleared: AtomicU32,
    /// Whether the last attempt to accept found no room; said once, not ten times a second.
    resting: AtomicBool,
}

/// A session and what the server knows of it beside.
struct Connection<K: FileSink> {
    session: Session<TcpSocket, K::File>,
    about: About,
}

#[derive(Clone, Copy)]
struct About {
    peer: Option<SocketAddr>,
    since: Instant,
}

impl<K: FileSink> Reactor<K> {
    pub(super) fn new(
        sink: K,
        config: Config,
        paths: FastPaths,
        sockets: Vec<TcpListener>,
        controls: Arc<Controls>,
    ) -> io::Result<Self> {
        let reactor = Reactor {
            listeners: Listeners::new(sockets, config.max_connections, LISTENERS)?,
            next_id: AtomicU64::new(config.first_id),
            slots: Slots::new(config.max_connections),
            sink,
            config,
            paths: Arc::new(paths),
            poller: Poller::new()?,
            deadlines: Deadlines::new()?,
            controls,
            draining: AtomicBool::new(false),
            cleared: AtomicU32::new(0),
            resting: AtomicBool::new(false),
        };
        reactor.listeners.watch(&reactor.poller)?;
        reactor.poller.add(&reactor.deadlines, ALARM, Interest::Read)?;
        reactor.poller.add(&reactor.controls.drain, DRAIN, Interest::Read)?;
        reactor.poller.add_broadcast(&reactor.controls.stop, STOP)?;
        Ok(reactor)
    }

    /// Serves events until the server is stopped, then helps to end the sessions that are left.
    pub(super) fn work(&self) -> io::Result<()> {
        let served = self.serve();
        // All workers share the slots out among them.
        let end = self.slots.used();
        loop {
            let index = self.cleared.fetch_add(1, Ordering::Relaxed);
            if index >= end {
                break;
            }
            self.clear(index);
        }
        served
    }

    /// Ends what is left when no worker works any more: while some cleared, others may still have
    /// parked, and one that panicked has cleared nothing.
    pub(super) fn clear_rest(&self) {
        (0..self.slots.used()).for_each(|index| self.clear(index));
    }

    fn serve(&self) -> io::Result<()> {
        let mut copier = Copier::new(Arc::clone(&self.paths));
        loop {
            match self.poller.wait()? {
                STOP => return Ok(()),
                DRAIN => self.handle_drain(),
                ALARM => self.handle_alarm(&mut copier)?,
                token @ LISTENERS.. => self.handle_listener((token - LISTENERS) as usize)?,
                token => self.handle_socket(Key::from_token(token), &mut copier),
            }
        }
    }

    fn clear(&self, index: u32) {
        if let Some((key, Connection { session, about })) = self.slots.evict(index) {
            self.finish(key, session.abort(&self.sink, Abort::Shutdown), about);
        }
    }

    fn handle_socket(&self, key: Key, copier: &mut Copier) {
        if let Some(Connection { session, about }) = self.slots.take(key) {
            let now = Instant::now();
            let turn = session.handle_ready(&self.sink, copier, &self.config.limits, now);
            self.settle(key, turn, about, now);
        }
    }

    /// Closes the listening sockets; who is in service may finish.
    fn handle_drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.listeners.close(&self.poller);
        self.stop_if_drained();
    }

    fn stop_if_drained(&self) {
        if self.draining.load(Ordering::SeqCst) && self.listeners.taken() == 0 {
            self.controls.stop.raise();
        }
    }

    /// Accepts a batch, then lets another worker have the socket.
    fn handle_listener(&self, index: usize) -> io::Result<()> {
        if !self.sink.has_room() {
            return self.rest(index, format_args!("the sink has no room"));
        }
        let mut failed = 0;
        for _ in 0..ACCEPT_BATCH {
            match self.listeners.accept(index) {
                Accepted::Connection(socket, peer) => match self.config.admission.admit(peer) {
                    Ok(()) => self.begin(socket, peer),
                    Err(why) => {
                        log::info!("refused a connection from {}: {why}", Peer(peer));
                        self.controls.counters.refused();
                        drop(socket);
                        self.make_room();
                    }
                },
                Accepted::Nobody => break,
                Accepted::Failed => {
                    log::debug!("a connection failed before it was accepted");
                    self.controls.counters.accept_error();
                    failed += 1;
                }
                Accepted::Full => {
                    self.listeners.sleep(index);
                    // A place may have been freed before anyone could see that we sleep.
                    return self.listeners.wake(&self.poller);
                }
                Accepted::Exhausted(error) => {
                    self.controls.counters.accept_error();
                    return self.rest(index, format_args!("{error}"));
                }
                Accepted::Closed => {
                    self.stop_if_drained();
                    return Ok(());
                }
            }
        }
        if failed == ACCEPT_BATCH {
            // Not one connection in so many: whatever it is, asking at full speed does not help.
            return self.rest(index, format_args!("connections fail before they are accepted"));
        }
        // An attempt that brought nobody held a place that another socket may have wanted.
        self.listeners.wake(&self.poller)?;
        self.listeners.arm(&self.poller, index)
    }

    /// Accepts nothing until a connection ends, or a while has passed.
    fn rest(&self, index: usize, why: std::fmt::Arguments<'_>) -> io::Result<()> {
        if !self.resting.swap(true, Ordering::Relaxed) {
            log::warn!("accepting no connections for now: {why}");
        }
        self.listeners.sleep(index);
        self.deadlines.push(Instant::now() + ACCEPT_RETRY, LISTENER_RETRY);
        Ok(())
    }

    /// Numbers and greets a connection.
    fn begin(&self, socket: TcpSocket, peer: Option<SocketAddr>) {
        if self.resting.swap(false, Ordering::Relaxed) {
            log::warn!("accepting connections again");
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.controls.counters.accepted();
        let now = Instant::now();
        let about = About { peer, since: now };
        log::debug!("connection {id}: accepted from {}", Peer(peer));
        let session = Session::begin(id, socket, self.config.dialect, now);
        let Some(key) = self.slots.reserve() else {
            // Never: a place in the listener comes with a slot in the table.
            let full = io::Error::from(io::ErrorKind::OutOfMemory);
            return self.report(session.abort(&self.sink, Abort::System(full)), about);
        };
        match session.greet(&self.sink) {
            Turn::Waiting(session) => self.park(key, session, about, Parking::First),
            Turn::Ended(ended) => self.finish(key, ended, about),
        }
    }

    /// Serves one deadline. The alarm is armed before the work, so another worker takes the next.
    fn handle_alarm(&self, copier: &mut Copier) -> io::Result<()> {
        let now = Instant::now();
        let due = self.deadlines.pop_due(now);
        self.poller.arm(&self.deadlines, ALARM, Interest::Read)?;
        let index = match due {
            None => return Ok(()),
            Some(LISTENER_RETRY) => return self.listeners.wake(&self.poller),
            Some(index) => index,
        };
        let limits = &self.config.limits;
        let later = |connection: &Connection<K>| {
            Some(connection.session.deadline(limits)).filter(|deadline| *deadline > now)
        };
        match self.slots.take_due(index, later) {
            Due::Nobody => {}
            Due::Later(deadline) => self.deadlines.push(deadline, index),
            Due::Now(key, Connection { session, about }) => {
                let turn = session.handle_timeout(&self.sink, copier, limits, now);
                self.settle(key, turn, about, now);
            }
        }
        Ok(())
    }

    /// Puts a session back to wait, or ends it.
    fn settle(&self, key: Key, turn: Turn<TcpSocket, K::File>, about: About, started: Instant) {
        match turn {
            Turn::Waiting(mut session) => {
                if session.heard() == started {
                    // However long the sink took over these bytes, the peer was not silent.
                    session.resume(started, Instant::now());
                }
                self.park(key, session, about, Parking::Again);
            }
            Turn::Ended(ended) => self.finish(key, ended, about),
        }
    }

    fn park(&self, key: Key, session: Session<TcpSocket, K::File>, about: About, parking: Parking) {
        let deadline = session.deadline(&self.config.limits);
        let (token, interest) = (key.token(), session.interest());
        let parked = self.slots.park(key, Connection { session, about }, |connection| {
            let socket = connection.session.socket();
            match parking {
                Parking::First => self.poller.add(socket, token, interest),
                Parking::Again => self.poller.arm(socket, token, interest),
            }
        });
        match parked {
            Ok(true) => self.deadlines.push(deadline, key.index),
            Ok(false) => {}
            Err((Connection { session, about }, error)) => {
                self.finish(key, session.abort(&self.sink, Abort::System(error)), about);
            }
        }
    }

    /// Ends a session and makes its place free.
    fn finish(&self, key: Key, ended: Ended<TcpSocket>, about: About) {
        self.report(ended, about);
        self.slots.release(key);
        self.config.admission.leave(about.peer);
        self.make_room();
    }

    /// Gives a place back, to whoever waits for it.
    fn make_room(&self) {
        self.listeners.leave();
        if let Err(error) = self.listeners.wake(&self.poller) {
            log::error!("cannot watch the listening socket: {error}");
            // It sleeps on. Were that only said, nobody might be accepted ever after.
            self.deadlines.push(Instant::now() + ACCEPT_RETRY, LISTENER_RETRY);
        }
        self.stop_if_drained();
    }

    /// Tells the observer what became of a connection, then the peer.
    fn report(&self, ended: Ended<TcpSocket>, about: About) {
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
        self.poller.remove(ended.socket.socket());
        ended.socket.release(outcome.result.is_ok());
    }
}

/// Whether the event queue knows the socket already.
#[derive(Clone, Copy)]
enum Parking {
    First,
    Again,
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
