//! The journal: one line of JSON for every connection.
//!
//! Any thread may queue a line; a single thread writes them. A journal that does not accept lines
//! therefore delays only the clients of these lines, and each of them by at most one second. Another
//! thread opens the file again after SIGHUP, which may take long, while this one writes to the old file.

mod line;
#[cfg(linux_sys)]
mod opener;
mod output;
mod place;
mod queue;
mod read;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
#[cfg(linux_sys)]
use std::sync::OnceLock;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{Outcome, os_error_text};
use jiff::Timestamp;

use super::spawn::spawn;
use crate::Failure;
#[cfg(linux_sys)]
use opener::Opener;
#[cfg(linux_sys)]
pub use opener::{is_helper, open_journals, outlive_signals};
use output::Output;
use place::{Place, cannot_open};
use queue::{Change, Queue};
pub use read::{ListedFile, ListedFiles};

/// Delay between a failed write and the next attempt.
const RETRY: Duration = Duration::from_millis(50);

/// Interval at which the watching thread looks for a write that hangs, while clients wait.
const WATCH: Duration = Duration::from_millis(200);

/// How long the helper may take to end, even if the journal has used up its time.
#[cfg(linux_sys)]
const HELPER_END: Duration = Duration::from_millis(20);

/// A client that waits for its line to be written. Dropping the value releases the client.
pub(super) type Client = Box<dyn std::any::Any + Send>;

#[derive(Debug)]
pub(super) struct Journal {
    shared: Arc<Shared>,
    /// The output, until the writing thread takes it.
    output: Mutex<Option<Output>>,
}

#[derive(Debug)]
struct Shared {
    /// The file, or `None` for stdout.
    place: Option<Place>,
    /// Opens the file on behalf of a sandboxed server, which may not open files itself.
    #[cfg(linux_sys)]
    opener: OnceLock<Opener>,
    durable: bool,
    state: Mutex<State>,
    /// Notified when the writing thread has something to do.
    changed: Condvar,
    /// Notified when a client starts to wait, for the watching thread.
    waited_for: Condvar,
    /// Notified when all lines are written, for [`Journal::finish`].
    written: Condvar,
}

#[derive(Debug)]
struct State {
    queue: Queue<Client>,
    /// Why the last write failed; empty if it did not.
    refusal: String,
    /// The file, opened again, until the writing thread takes it.
    reopened: Option<Output>,
    /// Whether the writing thread waits for a change.
    is_idle: bool,
    /// Whether the watching thread waits for clients.
    is_unwatched: bool,
}

impl Journal {
    /// Creates a journal that writes to stdout.
    pub(super) fn stdout() -> Result<Self, Failure> {
        let fd = io::stdout().as_fd().try_clone_to_owned();
        let output = fd.and_then(|fd| Output::new(fd, false));
        let output =
            output.map_err(|error| Failure::new("cannot use stdout", os_error_text(&error)))?;
        Ok(Journal::new(None, output, false))
    }

    /// Creates a journal that appends to the file at `path`, which may not be inside `file_dir`;
    /// creates its directory if missing. With `durable`, a client is released only after its line
    /// is on the disk.
    pub(super) fn open(
        path: &Path,
        file_dir: Option<&Path>,
        durable: bool,
    ) -> Result<Self, Failure> {
        place::create_parent(path, file_dir, durable)?;
        let place = Place::new(path, file_dir, durable)?;
        let output = place.open().and_then(|fd| Output::new(fd, durable));
        let output = output.map_err(|error| cannot_open(place.path(), &error))?;
        Ok(Journal::new(Some(place), output, durable))
    }

    fn new(place: Option<Place>, output: Output, durable: bool) -> Self {
        let shared = Shared {
            place,
            #[cfg(linux_sys)]
            opener: OnceLock::new(),
            durable,
            state: Mutex::new(State {
                queue: Queue::new(),
                refusal: String::new(),
                reopened: None,
                is_idle: false,
                is_unwatched: false,
            }),
            changed: Condvar::new(),
            waited_for: Condvar::new(),
            written: Condvar::new(),
        };
        Journal { shared: Arc::new(shared), output: Mutex::new(Some(output)) }
    }

    /// Starts a helper process that will open the file again on request. Call this before the
    /// sandbox takes away the permission to open files.
    #[cfg(linux_sys)]
    pub(super) fn delegate(&self) {
        let Some(place) = &self.shared.place else { return };
        match Opener::start(place) {
            Ok(opener) => drop(self.shared.opener.set(opener)),
            Err(failure) => log::warn!("SIGHUP will not reopen the journal: {failure}"),
        }
    }

    /// Starts the writing and the watching thread.
    pub(super) fn start(&self) -> Result<(), Failure> {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(output) = output else { return Ok(()) };
        let (writer, watcher) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        spawn("accio-journal", move || writer.write(output))?;
        spawn("accio-watch", move || watcher.watch())
    }

    /// Queues the line of a failed TLS handshake. No client waits for it, so nothing else limits the
    /// number of these lines.
    #[cfg(feature = "tls-server")]
    pub(super) fn refuse(&self, failed: &accio_proto::FailedHandshake) {
        self.push(line::refused(failed, Timestamp::now()), Box::new(()), false);
    }

    /// Queues the line of a finished connection; `client` is released once the line is written.
    pub(super) fn record(&self, outcome: &Outcome, client: Client) {
        self.push(line::ended(outcome, Timestamp::now()), client, true);
    }

    fn push(&self, line: Vec<u8>, client: Client, is_required: bool) {
        let mut state = self.shared.lock();
        let released = state.queue.push(line, client, is_required, Instant::now());
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

    /// Opens the file again, because log rotation may have renamed it. It may block; no client waits for
    /// it. Call it from one thread at a time.
    pub(super) fn reopen(&self) {
        let Some(place) = &self.shared.place else { return };
        #[cfg(linux_sys)]
        let opened = match self.shared.opener.get() {
            Some(opener) => opener.open(),
            None => place.open(),
        };
        #[cfg(not(linux_sys))]
        let opened = place.open();
        match opened.and_then(|fd| Output::new(fd, self.shared.durable)) {
            Ok(output) => {
                let unused = self.shared.lock().reopened.replace(output);
                self.shared.changed.notify_one();
                drop(unused);
            }
            #[cfg(linux_sys)]
            Err(_) if self.shared.opener.get().is_some_and(Opener::is_ended) => {}
            Err(error) => {
                let (path, why) = (place.path(), os_error_text(&error));
                log::error!("cannot reopen the journal {path:?}: {why}: keeping the old file open");
            }
        }
    }

    /// Waits until all lines are written or `deadline` has passed, and ends the helper process. The
    /// remaining lines are lost.
    pub(super) fn finish(&self, deadline: Instant) {
        self.write_rest(deadline);
        #[cfg(linux_sys)]
        if let Some(opener) = self.shared.opener.get() {
            opener.end(deadline.max(Instant::now() + HELPER_END));
        }
    }

    fn write_rest(&self, deadline: Instant) {
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

    /// Returns the number of lines that could not be written.
    #[cfg(feature = "metrics")]
    pub(super) fn lost(&self) -> u64 {
        self.shared.lock().queue.lost()
    }

    /// Returns whether the journal counts as failed: it refused lines for a second and has not yet
    /// accepted them for a second since.
    #[cfg(feature = "metrics")]
    pub(super) fn has_failed(&self) -> bool {
        self.shared.lock().queue.has_failed()
    }
}

impl Shared {
    /// Runs the writing thread.
    fn write(&self, mut output: Output) {
        loop {
            let text = self.take(&mut output);
            let written = output.write(&text);
            let mut state = self.lock();
            state.refusal = written.result.as_ref().err().map(os_error_text).unwrap_or_default();
            let now = Instant::now();
            let (mut clients, mut change) = state.queue.wrote(&written, now);
            if written.result.is_err() && change.is_none() {
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
            if written.result.is_err() {
                output.wait(RETRY);
            }
        }
    }

    /// Waits for lines to write and, in between, begins to use a file that was opened again.
    fn take(&self, output: &mut Output) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(reopened) = state.reopened.take() {
                drop(state);
                *output = reopened;
                if let Some(place) = &self.place {
                    log::info!("reopened the journal {:?}", place.path());
                }
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

    /// Runs the watching thread, which releases the clients of a write that does not return.
    fn watch(&self) {
        loop {
            let mut state = self.lock();
            while !state.queue.has_clients() {
                state.is_unwatched = true;
                state = self.waited_for.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // With `durable`, a slow disk is not a failure: the client must wait until its line is
            // on the disk.
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
        // Every change under this lock is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs a change of the journal.
fn report(change: Option<Change>, refusal: &str) {
    match change {
        None => {}
        Some(Change::Failed) => {
            log::error!("cannot write the journal: {refusal}: transfers continue without it");
        }
        Some(Change::Works { missing }) => {
            log::warn!("the journal accepts lines again; {missing} lines are missing");
        }
    }
}
