//! The front thread, which enforces time limits, and accepts connections that no worker is free to
//! accept.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::accept::Batch;
use super::committer::Marker;
use super::slots::{Due, Key};
use super::tuning::{FRONT_BATCH, STOP_GRACE, STOP_LIMIT, STOP_MARKER_THREADS, STOP_NOTICE};
use super::worker::Stay;
use super::{DRAIN, Parking, STOP, Shared, WAKE, lock, spawn};
use crate::panics::caught;
use crate::program_log as log;
use crate::server::connection::Progress;
use crate::session::{Abort, Expiry};
use crate::sink::FileSink;
use crate::sys::cpu_time::cpu_time;
use crate::sys::event_queue::Events;

/// Interval at which the front thread looks for blocked workers, while any worker is busy.
const TICK: Duration = Duration::from_millis(10);

/// Number of ticks without a busy worker after which ticking pauses.
const IDLE_TICKS: u32 = 10;

/// Interval at which a stopping server checks whether the last connections have ended.
const STOP_TICK: Duration = Duration::from_millis(1);

/// State that only the front thread uses.
pub(super) struct Front<K: FileSink> {
    pub(super) shared: Arc<Shared<K>>,
    /// When to accept again, while accepting is paused.
    resume_at: Option<Instant>,
    /// Whether to accept the connections that wait.
    accepts: bool,
    workers: usize,
    next_tick: Instant,
    last_tick: Instant,
    /// CPU time of the process at the last tick.
    cpu_time: Duration,
    idle_ticks: u32,
}

/// Whether the front thread continues to serve.
#[derive(Debug, PartialEq, Eq)]
enum Serving {
    Continues,
    Ended,
}

impl<K: FileSink> Front<K> {
    pub(super) fn new(shared: Arc<Shared<K>>) -> Self {
        let now = Instant::now();
        Front {
            shared,
            resume_at: None,
            accepts: false,
            workers: 0,
            next_tick: now,
            last_tick: now,
            cpu_time: Duration::ZERO,
            idle_ticks: 0,
        }
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
            self.accept_waiting();
            self.resume(now)?;
            let timeout = self.timeout(now);
            for token in shared.front.wait_many(&mut events, timeout)? {
                let serving = match token {
                    STOP => Serving::Ended,
                    DRAIN => self.drain(),
                    WAKE => self.wake(),
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
        lock(&shared.listeners).close(&shared.sessions);
        shared.stopping.store(true, Ordering::SeqCst);
        shared.halt.raise();
        self.announce_stop();
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
            shared.lanes.markers.allow_more(STOP_MARKER_THREADS);
            for info in abandoned {
                shared.push_marker(Marker::Abandon(info));
            }
            if !wait_until(stopped + STOP_LIMIT * 9 / 10, is_reported) {
                let left = shared.unreported.load(Ordering::SeqCst);
                log::error!(
                    "{left} connections have no report and may have no error marker: the disk does \
                     not respond"
                );
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

    /// Tells the sink that the server stops, and waits for its answer, but no longer than
    /// [`STOP_NOTICE`].
    fn announce_stop(&self) {
        let (told, is_told) = mpsc::channel();
        let tell = move |shared: Arc<Shared<K>>| {
            shared.connections.stopping();
            // The front thread may have stopped waiting.
            let _ = told.send(());
        };
        match spawn("accio-stopping".into(), &self.shared, tell) {
            Ok(()) => {
                let _ = is_told.recv_timeout(STOP_NOTICE);
            }
            Err(_) => self.shared.connections.stopping(),
        }
    }

    /// Handles every deadline that has passed.
    pub(super) fn run_due(&mut self, now: Instant) {
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
                    shared.queue_deadline(deadline, index);
                }
                Due::Now(key, connection, why) => {
                    let (info, was_arriving) = (connection.info(), connection.is_arriving());
                    let expire = || shared.connections.expire(connection, why);
                    let Some(expired) = caught(expire) else {
                        shared.lose(key, info);
                        continue;
                    };
                    shared.describe(key, info, &expired);
                    let parking = shared.hand_over(was_arriving, &expired);
                    shared.settle(key, expired, parking);
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
        let cpu_time = cpu_time();
        // The time between two ticks may be longer than an interval.
        let since = now.saturating_duration_since(self.last_tick);
        let running = cpu_time.saturating_sub(self.cpu_time) > since / 2;
        (self.last_tick, self.cpu_time) = (now, cpu_time);
        self.next_tick = now + TICK;
        self.accepts = true;
        let load = watch.tick(running);
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

    /// Accepts connections after a pause, and lets the workers accept the next ones.
    fn resume(&mut self, now: Instant) -> io::Result<()> {
        if self.resume_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        self.resume_at = None;
        self.accept_all();
        match self.resume_at {
            None => lock(&self.shared.listeners).arm_all(&self.shared.sessions),
            Some(_) => Ok(()),
        }
    }

    /// Accepts the connections that the workers have left since the last tick.
    fn accept_waiting(&mut self) {
        if !std::mem::take(&mut self.accepts) || self.resume_at.is_some() {
            return;
        }
        self.accept_all();
    }

    pub(super) fn accept_all(&mut self) {
        let tokens = lock(&self.shared.listeners).tokens();
        for token in tokens {
            match self.shared.accept_batch(token, FRONT_BATCH).0 {
                // The rest waits for the workers, or for the next tick: if thousands of connections
                // wait, serving those that are open comes first.
                Batch::Empty | Batch::Full => {}
                Batch::Paused(until) => {
                    self.resume_at = Some(until);
                    return;
                }
            }
        }
    }

    /// Handles a wake-up: a place is free, the sink has answered, or there is a new deadline.
    fn wake(&mut self) -> Serving {
        self.shared.wake.clear();
        let paused = self.shared.accepting_paused.swap(false, Ordering::SeqCst);
        if paused || self.resume_at.is_some() {
            self.resume_at = Some(Instant::now());
        }
        self.end_if_drained()
    }

    fn drain(&mut self) -> Serving {
        let shared = &self.shared;
        shared.front.remove(&shared.connections.controls.drain);
        lock(&shared.listeners).close(&shared.sessions);
        self.resume_at = None;
        shared.draining.store(true, Ordering::SeqCst);
        self.end_if_drained()
    }

    fn end_if_drained(&self) -> Serving {
        let has_ended = self.shared.draining.load(Ordering::SeqCst)
            && self.shared.open.load(Ordering::SeqCst) == 0;
        if has_ended { Serving::Ended } else { Serving::Continues }
    }

    /// Handles further bytes of a PROXY header.
    fn handle_arrival(&mut self, key: Key) -> Serving {
        let shared = &self.shared;
        let Some(connection) = shared.slots.take(key) else { return Serving::Continues };
        let (info, was_arriving) = (connection.info(), connection.is_arriving());
        let Some(progress) = caught(|| shared.connections.arrive(connection)) else {
            shared.lose(key, info);
            return Serving::Continues;
        };
        shared.describe(key, info, &progress);
        let parking = shared.hand_over(was_arriving, &progress);
        shared.settle(key, progress, parking);
        Serving::Continues
    }
}

impl<K: FileSink> Shared<K> {
    /// Stops watching a connection whose PROXY header is complete, because from then on the workers
    /// watch it. Returns how to park it.
    fn hand_over(&self, was_arriving: bool, progress: &Progress<K>) -> Parking {
        match progress {
            Progress::Waiting(connection) if was_arriving && !connection.is_arriving() => {
                self.front.remove(connection.socket());
                Parking::First
            }
            _ => Parking::Again,
        }
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
