//! The front thread, which accepts and greets connections and enforces time limits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::committer::Marker;
use super::listeners::Listeners;
use super::room::Answer;
use super::slots::{Due, Key};
use super::tuning::{STOP_GRACE, STOP_LIMIT};
use super::worker::Stay;
use super::{DRAIN, LISTENERS, Parking, STOP, Shared, WAKE};
use crate::server::connection::Progress;
use crate::server::listener::Accepted;
use crate::session::{Abort, Expiry};
use crate::sink::FileSink;
use crate::sys::event_queue::Events;
use crate::tuning::server::{ACCEPT_BATCH, ACCEPT_RETRY};

/// Interval at which the front thread looks for blocked workers, while any worker is busy.
const TICK: Duration = Duration::from_millis(10);

/// Number of ticks without a busy worker after which ticking pauses.
const IDLE_TICKS: u32 = 10;

/// Interval at which a stopping server checks whether the last connections have ended.
const STOP_TICK: Duration = Duration::from_millis(1);

/// State that only the front thread uses.
pub(super) struct Front<K: FileSink> {
    pub(super) shared: Arc<Shared<K>>,
    listeners: Listeners,
    /// When to listen again, while accepting is paused.
    resume_at: Option<Instant>,
    workers: usize,
    next_tick: Instant,
    idle_ticks: u32,
}

/// Whether the front thread continues to serve.
#[derive(Debug, PartialEq, Eq)]
enum Serving {
    Continues,
    Ended,
}

impl<K: FileSink> Front<K> {
    pub(super) fn new(shared: Arc<Shared<K>>, mut listeners: Listeners) -> io::Result<Self> {
        listeners.watch(&shared.front)?;
        Ok(Front {
            shared,
            listeners,
            resume_at: None,
            workers: 0,
            next_tick: Instant::now(),
            idle_ticks: 0,
        })
    }

    /// Starts the threads that must exist from the beginning.
    pub(super) fn start(&mut self, workers: usize) -> io::Result<()> {
        self.workers = workers;
        self.shared.start_committer()?;
        (0..workers).try_for_each(|_| self.shared.start_worker(Stay::UntilTheEnd))
    }

    /// Serves until the server is stopped or drained.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::<16>::new();
        let shared = Arc::clone(&self.shared);
        loop {
            // Due deadlines come before sockets, so that no time limit is late however many clients
            // connect.
            let now = Instant::now();
            self.run_due(now);
            self.tick(now);
            self.resume(now)?;
            let timeout = self.timeout(now);
            for token in shared.front.wait_many(&mut events, timeout)? {
                let serving = match token {
                    STOP => Serving::Ended,
                    DRAIN => self.drain(),
                    WAKE => self.wake(),
                    token @ LISTENERS.. => self.accept_batch(token)?,
                    token => self.handle_arrival(Key::from_token(token)),
                };
                if serving == Serving::Ended {
                    return Ok(());
                }
            }
        }
    }

    /// Ends every connection within [`STOP_LIMIT`], whatever the other threads are doing. Error
    /// markers and reports come first; only the space of discarded files may be freed later.
    pub(super) fn shut_down(&mut self) {
        let shared = Arc::clone(&self.shared);
        let stopped = Instant::now();
        self.listeners.close(&shared.front);
        shared.stopping.store(true, Ordering::SeqCst);
        shared.halt.raise();
        shared.connections.stopping();
        for index in 0..shared.slots.used() {
            if let Some((key, connection)) = shared.slots.evict(index) {
                let aborted = shared.connections.abort(connection, Abort::Shutdown);
                shared.settle(key, aborted, Parking::Again);
            }
        }
        let is_reported = || shared.unreported.load(Ordering::SeqCst) == 0;
        if !wait_until(stopped + STOP_LIMIT / 2, is_reported) {
            // The remaining connections belong to threads that are stuck in the kernel.
            let abandoned =
                (0..shared.slots.used()).filter_map(|index| shared.slots.abandon(index));
            let abandoned: Vec<_> = abandoned.collect();
            shared.lanes.markers.raise_limit(abandoned.len());
            for info in abandoned {
                log::warn!("connection {}: ended without its thread, which is stuck", info.id);
                shared.push_marker(Marker::Abandon(info));
            }
            if !wait_until(stopped + STOP_LIMIT * 9 / 10, is_reported) {
                let left = shared.unreported.load(Ordering::SeqCst);
                log::error!("{left} connections have no error marker: the disk does not respond");
            }
        }
        shared.lanes.markers.close();
        shared.lanes.commits.close();
        shared.lanes.discards.close();
        // From here on, only the program's own records may take time, up to the rest of the second.
        // Threads that are stuck or free discarded files end with the process.
        let end = Instant::now() + STOP_GRACE;
        wait_until(end, || shared.open.load(Ordering::SeqCst) == 0);
        wait_until(end, || shared.watch.is_vacant());
        shared.lanes.markers.wait_ended(end);
        shared.lanes.commits.wait_ended(end);
        shared.lanes.discards.wait_ended(end);
    }

    /// Handles every deadline that has passed.
    fn run_due(&mut self, now: Instant) {
        let shared = &self.shared;
        let config = &shared.connections.config;
        while let Some(index) = shared.deadlines.pop_due(now) {
            let due = shared.slots.take_due(index, |connection| {
                match connection.check_deadline(config, now) {
                    Expiry::Later(deadline) => Ok(deadline),
                    Expiry::Expired(why) => Err(why),
                }
            });
            match due {
                Due::Nothing => {}
                Due::Later(deadline) => {
                    shared.deadlines.push(deadline, index);
                }
                Due::Now(key, connection, why) => {
                    let info = connection.info();
                    let expired = shared.connections.expire(connection, why);
                    shared.describe(key, info, &expired);
                    shared.settle(key, expired, Parking::Again);
                }
            }
        }
    }

    /// Starts more workers for those that are blocked in the kernel, so that one is always free.
    fn tick(&mut self, now: Instant) {
        let watch = &self.shared.watch;
        if !watch.is_ticking() || now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        let load = watch.tick();
        self.idle_ticks = if load.busy == 0 { self.idle_ticks + 1 } else { 0 };
        if self.idle_ticks >= IDLE_TICKS && watch.pause() {
            self.idle_ticks = 0;
        }
        for _ in 0..load.missing(self.workers) {
            if let Err(error) = self.shared.start_worker(Stay::ForAWhile) {
                log::debug!("cannot start another worker: {error}");
                break;
            }
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let tick = self.shared.watch.is_ticking().then_some(self.next_tick);
        let times = [self.shared.deadlines.next(), self.resume_at, tick];
        let next = times.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Listens again when a pause has ended.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            self.listeners.watch(&self.shared.front)?;
        }
        Ok(())
    }

    /// Handles a wake-up: a place is free, the sink has answered, or there is a new deadline.
    fn wake(&mut self) -> Serving {
        self.shared.wake.clear();
        if self.resume_at.is_some() {
            self.resume_at = Some(Instant::now());
        }
        self.end_if_drained()
    }

    fn drain(&mut self) -> Serving {
        let shared = &self.shared;
        shared.front.remove(&shared.connections.controls.drain);
        self.listeners.close(&shared.front);
        self.resume_at = None;
        shared.draining.store(true, Ordering::SeqCst);
        self.end_if_drained()
    }

    fn end_if_drained(&self) -> Serving {
        let has_ended = self.shared.draining.load(Ordering::SeqCst)
            && self.shared.open.load(Ordering::SeqCst) == 0;
        if has_ended { Serving::Ended } else { Serving::Continues }
    }

    /// Pauses accepting until `at`, or until a connection ends.
    fn pause_until(&mut self, at: Instant) {
        self.listeners.ignore(&self.shared.front);
        self.resume_at = Some(at);
        self.shared.places.want();
    }

    /// Pauses accepting for a moment, and logs why.
    fn pause(&mut self, why: std::fmt::Arguments<'_>) {
        self.shared.connections.pause(why);
        self.pause_until(Instant::now() + ACCEPT_RETRY);
    }

    /// Accepts a batch of connections from one socket.
    fn accept_batch(&mut self, token: u64) -> io::Result<Serving> {
        let shared = Arc::clone(&self.shared);
        let mut failed = 0;
        for _ in 0..ACCEPT_BATCH {
            let now = Instant::now();
            if !self.may_accept(now) {
                return Ok(Serving::Continues);
            }
            if !shared.places.take() {
                self.wait_for_place();
                return Ok(Serving::Continues);
            }
            match self.listeners.accept(token) {
                Accepted::Connection(socket, peer) => {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    shared.unreported.fetch_add(1, Ordering::SeqCst);
                    let progress = shared.connections.receive(socket, peer, now);
                    self.begin(progress);
                    continue;
                }
                Accepted::Nothing => {
                    shared.places.leave();
                    break;
                }
                Accepted::Failed => {
                    shared.places.leave();
                    log::debug!("a connection failed before it was accepted");
                    shared.connections.controls.counters.accept_error();
                    failed += 1;
                }
                Accepted::Exhausted(error) => {
                    shared.places.leave();
                    shared.connections.controls.counters.accept_error();
                    self.pause(format_args!("{error}"));
                    return Ok(Serving::Continues);
                }
            }
        }
        if failed == ACCEPT_BATCH {
            // The whole batch failed. Whatever the cause, retrying at full speed does not help.
            self.pause(format_args!("connections fail before they are accepted"));
        }
        Ok(Serving::Continues)
    }

    /// Returns whether the next connection may be accepted; pauses accepting otherwise.
    fn may_accept(&mut self, now: Instant) -> bool {
        if self.shared.connections.is_exhausted() {
            // All numbers are used, which does not change: nothing resumes accepting.
            self.listeners.ignore(&self.shared.front);
            return false;
        }
        let verdict = self.shared.room.look(now);
        if verdict.ask {
            self.shared.push_marker(Marker::Room);
        }
        match verdict.room {
            Answer::Yes => return true,
            Answer::No => self.pause(format_args!("no room for files")),
            Answer::Soon(until) => self.pause_until(until),
        }
        false
    }

    /// Pauses accepting until a connection ends.
    fn wait_for_place(&mut self) {
        // A distant time: the end of a connection resumes accepting earlier.
        self.pause_until(Instant::now() + Duration::from_secs(60));
        if self.shared.places.is_free() {
            // A connection ended before the request for a wake-up was visible.
            self.resume_at = Some(Instant::now());
        }
    }

    /// Starts serving a new connection.
    fn begin(&mut self, progress: Progress<K>) {
        let shared = &self.shared;
        let connection = match progress {
            Progress::Waiting(connection) => connection,
            Progress::Unnumbered(refused) => {
                let wanted = shared.places.leave();
                refused.close();
                shared.unreported.fetch_sub(1, Ordering::SeqCst);
                return shared.closed(wanted);
            }
            // A new connection is either in service or refused.
            Progress::Ended(_) => return,
        };
        let Some(key) = shared.slots.reserve(connection.info()) else {
            // Cannot happen: the table has a slot for every place.
            log::error!("no slot for a connection");
            return;
        };
        let greeted = shared.connections.greet(connection);
        shared.settle(key, greeted, Parking::First);
    }

    /// Handles further bytes of a PROXY header.
    fn handle_arrival(&mut self, key: Key) -> Serving {
        let shared = &self.shared;
        let Some(connection) = shared.slots.take(key) else { return Serving::Continues };
        let progress = shared.connections.arrive(connection);
        match &progress {
            Progress::Waiting(connection) if !connection.is_arriving() => {
                // From here on the workers watch this connection.
                shared.describe(key, None, &progress);
                shared.front.remove(connection.socket());
                shared.settle(key, progress, Parking::First);
            }
            _ => shared.settle(key, progress, Parking::Again),
        }
        Serving::Continues
    }
}

/// Waits until `is_true` returns true, or until `deadline`. Returns whether it did.
fn wait_until(deadline: Instant, is_true: impl Fn() -> bool) -> bool {
    loop {
        if is_true() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STOP_TICK);
    }
}
