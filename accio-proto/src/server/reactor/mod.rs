//! The reactor: workers that all wait on one event queue and serve whatever comes.

mod deadlines;
mod listeners;
#[cfg(test)]
mod model_test;
mod slots;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use super::connections::{Guest, Over, Service, Visit};
use super::error::ServerError;
use super::handle::ServerHandle;
use super::listener::Accepted;
use crate::copier::Copier;
use crate::session::Abort;
use crate::sink::FileSink;
use crate::socket::Interest;
use crate::sys::event_queue::Poller;
use crate::tuning::server::{ACCEPT_BATCH, ACCEPT_RETRY};
use deadlines::Deadlines;
use listeners::{Listeners, Untried};
use slots::{Due, Key, Slots};

/// The tokens that are no slot's: slot indices are far below their lower half.
const ALARM: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const DRAIN: u64 = u64::MAX - 2;
/// The token of the first listening socket; the others follow.
const LISTENERS: u64 = u64::MAX - 0xffff;

/// The entry of the deadline queue that wakes the listening sockets.
const LISTENER_RETRY: u32 = u32::MAX;

/// Whether this system has an event queue to wait at.
pub(super) const IS_AVAILABLE: bool = true;

/// What the workers share.
pub(super) struct Reactor<K: FileSink> {
    service: Service<K>,
    listeners: Listeners,
    poller: Poller,
    deadlines: Deadlines,
    slots: Slots<Guest<K>>,
    /// No more connections are accepted; the end of the last one stops the server.
    draining: AtomicBool,
    /// The first slot that no worker has cleared yet when the server stops.
    cleared: AtomicU32,
}

impl<K: FileSink> Reactor<K> {
    pub(super) fn new(service: Service<K>, sockets: Vec<TcpListener>) -> io::Result<Self> {
        let max_connections = service.config.max_connections;
        let reactor = Reactor {
            listeners: Listeners::new(sockets, max_connections, LISTENERS)?,
            slots: Slots::new(max_connections),
            service,
            poller: Poller::new()?,
            deadlines: Deadlines::new()?,
            draining: AtomicBool::new(false),
            cleared: AtomicU32::new(0),
        };
        let controls = &reactor.service.controls;
        reactor.listeners.watch(&reactor.poller)?;
        reactor.poller.add(&reactor.deadlines, ALARM, Interest::Read)?;
        reactor.poller.add(&controls.drain, DRAIN, Interest::Read)?;
        reactor.poller.add_broadcast(&controls.stop, STOP)?;
        Ok(reactor)
    }

    /// Serves with so many workers until the server is stopped.
    pub(super) fn run(self, workers: usize, handle: &ServerHandle) -> Result<(), ServerError> {
        std::thread::scope(|scope| {
            let work = || {
                // One that fails or panics takes the others with it, rather than leave a server
                // that serves half.
                let _guard = StopOnDrop(handle);
                self.work().map_err(ServerError::Serve)
            };
            let mut threads = Vec::with_capacity(workers);
            let mut result = Ok(());
            for number in 1..=workers {
                let builder = std::thread::Builder::new().name(format!("accio-worker-{number}"));
                match builder.spawn_scoped(scope, work) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => {
                        handle.stop();
                        result = Err(ServerError::Start(error));
                        break;
                    }
                }
            }
            let mut panicked = None;
            for thread in threads {
                match thread.join() {
                    Ok(worked) => result = result.and(worked),
                    Err(panic) => panicked = panicked.or(Some(panic)),
                }
            }
            self.clear_rest();
            panicked.map_or(result, |panic| std::panic::resume_unwind(panic))
        })
    }

    /// Serves events until the server is stopped, then helps to end the sessions that are left.
    fn work(&self) -> io::Result<()> {
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
    fn clear_rest(&self) {
        (0..self.slots.used()).for_each(|index| self.clear(index));
    }

    fn serve(&self) -> io::Result<()> {
        let mut copier = Copier::new(Arc::clone(&self.service.paths));
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
        if let Some((key, guest)) = self.slots.evict(index) {
            self.finish(key, self.service.abort(guest, Abort::Shutdown));
        }
    }

    fn handle_socket(&self, key: Key, copier: &mut Copier) {
        if let Some(guest) = self.slots.take(key) {
            self.settle(key, self.service.handle_ready(guest, copier), Parking::Again);
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
            self.service.controls.stop.raise();
        }
    }

    /// Accepts a batch, then lets another worker have the socket.
    fn handle_listener(&self, index: usize) -> io::Result<()> {
        if !self.service.sink.has_room() {
            return self.rest(index, format_args!("the sink has no room"));
        }
        let mut failed = 0;
        for _ in 0..ACCEPT_BATCH {
            match self.listeners.accept(index) {
                Ok(Accepted::Connection(socket, peer)) => {
                    match self.service.receive(socket, peer) {
                        Ok(guest) => self.begin(guest),
                        Err(over) => {
                            self.service.end(over, |_| {});
                            self.make_room();
                        }
                    }
                }
                Ok(Accepted::Nobody) => break,
                Ok(Accepted::Failed) => {
                    log::debug!("a connection failed before it was accepted");
                    self.service.controls.counters.accept_error();
                    failed += 1;
                }
                Err(Untried::Full) => {
                    self.listeners.sleep(index);
                    // A place may have been freed before anyone could see that we sleep.
                    return self.listeners.wake(&self.poller);
                }
                Ok(Accepted::Exhausted(error)) => {
                    self.service.controls.counters.accept_error();
                    return self.rest(index, format_args!("{error}"));
                }
                Err(Untried::Closed) => {
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
        self.service.rest(why);
        self.listeners.sleep(index);
        self.deadlines.push(Instant::now() + ACCEPT_RETRY, LISTENER_RETRY);
        Ok(())
    }

    /// Greets a connection.
    fn begin(&self, guest: Guest<K>) {
        let Some(key) = self.slots.reserve() else {
            // Never: a place in the listener comes with a slot in the table.
            let full = Abort::System(io::ErrorKind::OutOfMemory.into());
            return self.end(self.service.abort(guest, full));
        };
        self.settle(key, self.service.greet(guest), Parking::First);
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
        let config = &self.service.config;
        let later = |guest: &Guest<K>| Some(guest.deadline(config)).filter(|time| *time > now);
        match self.slots.take_due(index, later) {
            Due::Nobody => {}
            Due::Later(deadline) => self.deadlines.push(deadline, index),
            Due::Now(key, guest) => {
                self.settle(key, self.service.handle_timeout(guest, copier), Parking::Again);
            }
        }
        Ok(())
    }

    /// Puts a connection back to wait, or ends it and makes its place free.
    fn settle(&self, key: Key, visit: Visit<K>, parking: Parking) {
        match visit {
            Visit::Waiting(guest) => self.park(key, guest, parking),
            Visit::Over(over) => self.finish(key, over),
        }
    }

    fn park(&self, key: Key, guest: Guest<K>, parking: Parking) {
        let deadline = guest.deadline(&self.service.config);
        let (token, interest) = (key.token(), guest.interest());
        let parked = self.slots.park(key, guest, |guest| match parking {
            Parking::First => self.poller.add(guest.socket(), token, interest),
            Parking::Again => self.poller.arm(guest.socket(), token, interest),
        });
        match parked {
            Ok(true) => self.deadlines.push(deadline, key.index),
            Ok(false) => {}
            Err((guest, error)) => {
                self.finish(key, self.service.abort(guest, Abort::System(error)))
            }
        }
    }

    /// Ends a connection and makes its place free.
    fn finish(&self, key: Key, over: Over) {
        self.end(over);
        self.slots.release(key);
        self.make_room();
    }

    /// A socket leaves the event queue before it is closed.
    fn end(&self, over: Over) {
        self.service.end(over, |socket| self.poller.remove(socket));
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
}

/// Whether the event queue knows the socket already.
#[derive(Clone, Copy)]
enum Parking {
    First,
    Again,
}

/// Stops the server when a worker leaves, for whatever reason.
struct StopOnDrop<'a>(&'a ServerHandle);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
