//! The journal: one line of JSON for every connection.
//!
//! Any thread queues a line; a single one writes them, so that a journal that does not accept lines
//! delays nobody but the clients of those lines, and these for a second at most.

mod line;
mod opener;
mod output;
mod place;
mod queue;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{Outcome, os_error_text};
use jiff::Timestamp;

use super::spawn::spawn;
use crate::{Failure, check_stdout};
use opener::Opener;
pub use opener::open_journals;
use output::Output;
use place::{Place, cannot_open};
use queue::{Change, Queue};

/// How long to wait after a refusal before the next attempt.
const RETRY: Duration = Duration::from_millis(50);

/// How often to look whether a write is stuck, while clients wait.
const WATCH: Duration = Duration::from_millis(200);

/// A client that waits for its line; dropping it tells the client.
pub(super) type Client = Box<dyn std::any::Any + Send>;

#[derive(Debug)]
pub(super) struct Journal {
    shared: Arc<Shared>,
    /// Until the writing thread has it.
    output: Mutex<Option<Output>>,
}

#[derive(Debug)]
struct Shared {
    /// `None` for stdout.
    place: Option<Place>,
    /// Opens the file where this process may not.
    opener: OnceLock<Opener>,
    durable: bool,
    state: Mutex<State>,
    /// For the writing thread.
    changed: Condvar,
    /// For the thread that watches it.
    waited_for: Condvar,
    /// For the end.
    written: Condvar,
}

#[derive(Debug)]
struct State {
    queue: Queue<Client>,
    /// Why the journal last refused a line.
    refusal: String,
    reopen: bool,
    /// The writing thread waits for a change.
    is_idle: bool,
    /// The watching thread waits for clients.
    is_unwatched: bool,
}

impl Journal {
    /// Writes to stdout.
    pub(super) fn stdout() -> Result<Self, Failure> {
        let fd = check_stdout().and_then(|()| io::stdout().as_fd().try_clone_to_owned());
        let output = fd.and_then(|fd| Output::new(fd, false));
        let output =
            output.map_err(|error| Failure::new("cannot use stdout", os_error_text(&error)))?;
        Ok(Journal::new(None, output, false))
    }

    /// Appends to the file at `path`, which may not be inside `folder`. With `durable`, a line is on
    /// the disk before its client is told.
    pub(super) fn open(path: &Path, folder: Option<&Path>, durable: bool) -> Result<Self, Failure> {
        let place = Place::new(path, folder, durable)?;
        let output = place.open().and_then(|fd| Output::new(fd, durable));
        let output = output.map_err(|error| cannot_open(place.path(), &error))?;
        Ok(Journal::new(Some(place), output, durable))
    }

    fn new(place: Option<Place>, output: Output, durable: bool) -> Self {
        let shared = Shared {
            place,
            opener: OnceLock::new(),
            durable,
            state: Mutex::new(State {
                queue: Queue::new(),
                refusal: String::new(),
                reopen: false,
                is_idle: false,
                is_unwatched: false,
            }),
            changed: Condvar::new(),
            waited_for: Condvar::new(),
            written: Condvar::new(),
        };
        Journal { shared: Arc::new(shared), output: Mutex::new(Some(output)) }
    }

    /// Has the file opened by another process from now on, because this one is about to give up
    /// opening files.
    pub(super) fn delegate(&self) {
        let Some(place) = &self.shared.place else { return };
        match Opener::start(place) {
            Ok(opener) => drop(self.shared.opener.set(opener)),
            Err(failure) => log::warn!("SIGHUP will not reopen the journal: {failure}"),
        }
    }

    /// Starts the threads that write.
    pub(super) fn start(&self) -> Result<(), Failure> {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(output) = output else { return Ok(()) };
        let (writer, watcher) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        spawn("accio-journal", move || writer.write(output))?;
        spawn("accio-watch", move || watcher.watch())
    }

    /// Queues the line of a failed TLS handshake.
    #[cfg(feature = "tls-server")]
    pub(super) fn refuse(&self, failed: &accio_proto::FailedHandshake) {
        self.push(line::refused(failed, Timestamp::now()), Box::new(()));
    }

    /// Queues the line of a connection that has ended; `client` is told once it is written.
    pub(super) fn record(&self, outcome: &Outcome, client: Client) {
        self.push(line::ended(outcome, Timestamp::now()), client);
    }

    fn push(&self, line: Vec<u8>, client: Client) {
        let mut state = self.shared.lock();
        let released = state.queue.push(line, client, Instant::now());
        let (wake, watch) = (state.is_idle, state.is_unwatched);
        (state.is_idle, state.is_unwatched) = (false, false);
        drop(state);
        drop(released);
        if wake {
            self.shared.changed.notify_one();
        }
        if watch {
            self.shared.waited_for.notify_one();
        }
    }

    /// Opens the file again, for it may have been moved away.
    pub(super) fn reopen(&self) {
        if self.shared.place.is_some() {
            self.shared.lock().reopen = true;
            self.shared.changed.notify_one();
        }
    }

    /// Waits until all lines are written, but not beyond `deadline`; the rest is lost.
    pub(super) fn finish(&self, deadline: Instant) {
        let mut state = self.shared.lock();
        while !state.queue.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let before = state.queue.lost();
                let clients = state.queue.abandon();
                let lost = state.queue.lost() - before;
                drop(state);
                drop(clients);
                return log::error!("cannot finish the journal in time: {lost} lines are missing");
            }
            let waited = self.shared.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The number of lines that could not be written.
    #[cfg(feature = "metrics")]
    pub(super) fn lost(&self) -> u64 {
        self.shared.lock().queue.lost()
    }

    /// Whether it has refused lines for a second, and not yet accepted them for as long.
    #[cfg(feature = "metrics")]
    pub(super) fn has_failed(&self) -> bool {
        self.shared.lock().queue.has_failed()
    }
}

impl Shared {
    /// The writing thread.
    fn write(&self, mut output: Output) {
        loop {
            let text = self.take(&mut output);
            let (written, result) = output.write(&text);
            let mut state = self.lock();
            state.refusal = result.as_ref().err().map(os_error_text).unwrap_or_default();
            let now = Instant::now();
            let (mut clients, mut change) = state.queue.wrote(written, &result, now);
            if result.is_err() && change.is_none() {
                let expired = state.queue.expire(now);
                change = (!expired.is_empty()).then_some(Change::Failed);
                clients.extend(expired);
            }
            let refusal = change.is_some().then(|| state.refusal.clone());
            if state.queue.is_empty() {
                self.written.notify_all();
            }
            drop(state);
            drop(clients);
            report(change, &refusal.unwrap_or_default());
            if result.is_err() {
                output.wait(RETRY);
            }
        }
    }

    /// Waits for lines to write, and opens the file again in between where that is asked for.
    fn take(&self, output: &mut Output) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if std::mem::take(&mut state.reopen) {
                drop(state);
                self.open_again(output);
                state = self.lock();
            } else if state.queue.has_work() {
                let report = |count| line::lost(count, Timestamp::now());
                return state.queue.take(output.batch(), report);
            } else if let Some(change) = state.queue.recover(Instant::now()) {
                drop(state);
                report(Some(change), "");
                state = self.lock();
            } else {
                state.is_idle = true;
                let until = state.queue.recovers_at();
                let limit = until.map(|until| until.saturating_duration_since(Instant::now()));
                state = match limit {
                    None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                    Some(limit) => {
                        let waited = self.changed.wait_timeout(state, limit);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                };
            }
        }
    }

    fn open_again(&self, output: &mut Output) {
        let Some(place) = &self.place else { return };
        let opened = match self.opener.get() {
            Some(opener) => opener.open(),
            None => place.open(),
        };
        match opened.and_then(|fd| Output::new(fd, self.durable)) {
            Ok(opened) => {
                *output = opened;
                log::info!("reopened the journal {:?}", place.path());
            }
            Err(error) => {
                let (path, why) = (place.path(), os_error_text(&error));
                log::error!("cannot reopen the journal {path:?}: {why}: keeping the old file open");
            }
        }
    }

    /// The watching thread: releases the clients of a write that does not return.
    fn watch(&self) {
        loop {
            let mut state = self.lock();
            while !state.queue.has_clients() {
                state.is_unwatched = true;
                state = self.waited_for.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // A disk that takes its time is no refusal where lines have to be on it.
            let clients =
                if self.durable { Vec::new() } else { state.queue.expire(Instant::now()) };
            let refusal = match state.refusal.is_empty() {
                true => "a write does not return".to_owned(),
                false => state.refusal.clone(),
            };
            drop(state);
            if !clients.is_empty() {
                drop(clients);
                report(Some(Change::Failed), &refusal);
            }
            thread::sleep(WATCH);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs a change of the journal.
fn report(change: Option<Change>, refusal: &str) {
    match change {
        None => {}
        Some(Change::Failed) => {
            log::error!("cannot write the journal, transfers continue without it: {refusal}");
        }
        Some(Change::Works { missing }) => {
            log::warn!("the journal accepts lines again; {missing} lines are missing");
        }
    }
}
