//! The front thread: it accepts, greets and enforces time limits.

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
use crate::server::connections::Progress;
use crate::server::listener::Accepted;
use crate::session::{Abort, Expiry};
use crate::sink::FileSink;
use crate::sys::event_queue::Events;
use crate::tuning::server::{ACCEPT_BATCH, ACCEPT_RETRY};

/// How often the front thread looks for workers that are held up, while any works.
const TICK: Duration = Duration::from_millis(10);

/// Ticks without a busy worker after which the ticking pauses.
const IDLE_TICKS: u32 = 10;

/// How often the end of the last connections is looked for at a stop.
const STOP_TICK: Duration = Duration::from_millis(1);

/// What only the front thread touches.
pub(super) struct Front<K: FileSink> {
    pub(super) shared: Arc<Shared<K>>,
    listeners: Listeners,
    /// When to listen again, while accepting is paused.
    resume_at: Option<Instant>,
    workers: usize,
    next_tick: Instant,
    idle_ticks: u32,
}

/// Whether the server goes on.
#[derive(Debug, PartialEq, Eq)]
enum Serving {
    On,
    Over,
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

    /// Starts the threads that must be there from the beginning.
    pub(super) fn start(&mut self, workers: usize) -> io::Result<()> {
        self.workers = workers;
        self.shared.start_committer()?;
        (0..workers).try_for_each(|_| self.shared.start_worker(Stay::UntilTheEnd))
    }

    /// Serves until the server is stopped, or drained.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::<16>::new();
        let shared = Arc::clone(&self.shared);
        loop {
            // All that is due, before any socket: however many connect, no limit waits for them.
            let now = Instant::now();
            self.run_due(now);
            self.tick(now);
            self.resume(now)?;
            let timeout = self.timeout(now);
            for token in shared.front.wait_many(&mut events, timeout)? {
                let serving = match token {
                    STOP => Serving::Over,
                    DRAIN => self.drain(),
                    WAKE => self.wake(),
                    token @ LISTENERS.. => self.accept_batch(token)?,
                    token => self.handle_arrival(Key::from_token(token)),
                };
                if serving == Serving::Over {
                    return Ok(());
                }
            }
        }
    }

    /// Ends every connection, within [`STOP_LIMIT`] whatever the other threads are doing: the
    /// error marker and the report of each come first, and only the space of discarded files may
    /// be freed later.
    pub(super) fn shut_down(&mut self) {
        let shared = Arc::clone(&self.shared);
        let stopped = Instant::now();
        self.listeners.close(&shared.front);
        shared.stopping.store(true, Ordering::SeqCst);
        shared.halt.raise();
        for index in 0..shared.slots.used() {
            if let Some((key, connection)) = shared.slots.evict(index) {
                let aborted = shared.connections.abort(connection, Abort::Shutdown);
                shared.settle(key, aborted, Parking::Again);
            }
        }
        let is_reported = || shared.unreported.load(Ordering::SeqCst) == 0;
        if !wait_until(stopped + STOP_LIMIT / 2, is_reported) {
            // Threads that are stuck in the kernel have the rest.
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
        // A recorder that does not accept its records gets the rest of the second from its owner,
        // and threads that are stuck, or free discarded files, end with the process.
        let end = Instant::now() + STOP_GRACE;
        wait_until(end, || shared.open.load(Ordering::SeqCst) == 0);
        wait_until(end, || shared.watch.is_vacant());
        shared.lanes.markers.wait_ended(end);
        shared.lanes.commits.wait_ended(end);
        shared.lanes.discards.wait_ended(end);
    }

    /// Handles every deadline that has come.
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

    /// Starts workers for those that are held up in the kernel, so that one is always free.
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

    /// Listens again when a pause is over.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume_at = None;
            self.listeners.watch(&self.shared.front)?;
        }
        Ok(())
    }

    /// A place is free, the sink has answered, or there is something to wait for.
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
        let is_over = self.shared.draining.load(Ordering::SeqCst)
            && self.shared.open.load(Ordering::SeqCst) == 0;
        if is_over { Serving::Over } else { Serving::On }
    }

    /// Accepts nothing until `at`, or until a connection ends.
    fn pause_until(&mut self, at: Instant) {
        self.listeners.ignore(&self.shared.front);
        self.resume_at = Some(at);
        self.shared.places.want();
    }

    /// The same for a while, said in the log.
    fn pause(&mut self, why: std::fmt::Arguments<'_>) {
        self.shared.connections.pause(why);
        self.pause_until(Instant::now() + ACCEPT_RETRY);
    }

    /// Accepts a batch of one socket's connections.
    fn accept_batch(&mut self, token: u64) -> io::Result<Serving> {
        let shared = Arc::clone(&self.shared);
        let mut failed = 0;
        for _ in 0..ACCEPT_BATCH {
            let now = Instant::now();
            if !self.may_accept(now) {
                return Ok(Serving::On);
            }
            if !shared.places.take() {
                self.wait_for_place();
                return Ok(Serving::On);
            }
            match self.listeners.accept(token) {
                Accepted::Connection(socket, peer) => {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    shared.unreported.fetch_add(1, Ordering::SeqCst);
                    let progress = shared.connections.receive(socket, peer, now);
                    self.begin(progress);
                    continue;
                }
                Accepted::Nobody => {
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
                    return Ok(Serving::On);
                }
            }
        }
        if failed == ACCEPT_BATCH {
            // Not one connection in so many: whatever it is, asking at full speed does not help.
            self.pause(format_args!("connections fail before they are accepted"));
        }
        Ok(Serving::On)
    }

    /// Whether the next connection can be taken; if not, accepting is paused.
    fn may_accept(&mut self, now: Instant) -> bool {
        if self.shared.connections.is_exhausted() {
            // For good: nothing resumes it.
            self.listeners.ignore(&self.shared.front);
            return false;
        }
        let verdict = self.shared.room.look(now);
        if verdict.ask {
            self.shared.push_marker(Marker::Room);
        }
        match verdict.room {
            Answer::Yes => return true,
            Answer::No => self.pause(format_args!("the sink has no room")),
            Answer::Soon(until) => self.pause_until(until),
        }
        false
    }

    /// Accepts nothing until a connection ends.
    fn wait_for_place(&mut self) {
        // Far away: the end of a connection comes first.
        self.pause_until(Instant::now() + Duration::from_secs(60));
        if self.shared.places.is_free() {
            // One ended before anything could know that it is waited for.
            self.resume_at = Some(Instant::now());
        }
    }

    /// Greets a fresh connection.
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
            // A fresh connection is either taken or refused.
            Progress::Ended(_) => return,
        };
        let Some(key) = shared.slots.reserve(connection.info()) else {
            // Never: a place comes with a slot in the table.
            log::error!("no slot for a connection");
            return;
        };
        let greeted = shared.connections.greet(connection);
        shared.settle(key, greeted, Parking::First);
    }

    /// A proxy has sent more of its header.
    fn handle_arrival(&mut self, key: Key) -> Serving {
        let shared = &self.shared;
        let Some(connection) = shared.slots.take(key) else { return Serving::On };
        let progress = shared.connections.arrive(connection);
        match &progress {
            Progress::Waiting(connection) if !connection.is_arriving() => {
                // From here on the workers watch it.
                shared.describe(key, None, &progress);
                shared.front.remove(connection.socket());
                shared.settle(key, progress, Parking::First);
            }
            _ => shared.settle(key, progress, Parking::Again),
        }
        Serving::On
    }
}

/// Waits until something has become true, until `deadline` at most. Returns whether it has.
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
