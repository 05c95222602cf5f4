//! How a server ends: a signal, perhaps a while for the transfers in service, the end.

use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::ServerHandle;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::journal::Journal;
use super::{Program, systemd};
use crate::{Failure, reason};

/// How long a stopped server may take to abort what is unfinished. It exits within a second, even
/// if a disk or a pipe holds a worker up.
pub(super) const GRACE: Duration = Duration::from_millis(900);

/// How much of that is for what the connections left to do.
const FINISH: Duration = Duration::from_millis(500);

/// How often systemd is told how many transfers are left.
const STATUS: Duration = Duration::from_secs(1);

/// The signals are watched, but nobody acts on them yet.
pub(super) struct End {
    signals: Signals,
    journal: Option<Arc<Journal>>,
    drain: Duration,
}

/// Signals are acted on.
pub(super) struct Ending {
    shared: Arc<Shared>,
    events: Sender<Event>,
}

struct Shared {
    /// Whether the first signal has come.
    started: Arc<AtomicBool>,
    /// When transfers are aborted, once that is known.
    stop_at: Mutex<Option<Instant>>,
}

enum Event {
    Signal(i32),
    Finished,
}

impl End {
    /// From now on, no signal that is ours ends the process.
    pub(super) fn watch(drain: Duration, journal: Option<Arc<Journal>>) -> Result<Self, Failure> {
        let mut signals = vec![SIGINT, SIGTERM, SIGQUIT];
        // Without a journal in a file it means what it always does: the terminal is gone.
        let journal = journal.filter(|journal| journal.directory().is_some());
        signals.extend(journal.as_ref().map(|_| SIGHUP));
        let signals = Signals::new(signals)
            .map_err(|error| Failure::new("cannot watch for signals", reason(&error)))?;
        Ok(End { signals, journal, drain })
    }

    /// Acts on signals from now on.
    pub(super) fn control(
        self,
        handle: ServerHandle,
        program: Arc<dyn Program>,
    ) -> Result<Ending, Failure> {
        let End { mut signals, journal, drain } = self;
        let shared = Arc::new(Shared {
            started: Arc::new(AtomicBool::new(false)),
            stop_at: Mutex::new(None),
        });
        let (events, received) = mpsc::channel();
        let forward = events.clone();
        spawn("accio-signals", move || {
            for signal in signals.forever() {
                match (signal, &journal) {
                    (SIGHUP, Some(journal)) => journal.reopen(),
                    // Nobody is there to hear it once the end is over.
                    _ => drop(forward.send(Event::Signal(signal))),
                }
            }
        })?;
        let ending = Ending { shared: Arc::clone(&shared), events };
        spawn("accio-end", move || shared.control(&received, &handle, &*program, drain))?;
        Ok(ending)
    }
}

impl Ending {
    /// Becomes true with the first signal.
    #[cfg(feature = "metrics")]
    pub(super) fn started(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.started)
    }

    /// When everything has to be over, as far as that is known now.
    pub(super) fn deadline(&self) -> Instant {
        let mut stop_at = self.shared.stop_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a signal, the server ended by itself, now.
        *stop_at.get_or_insert_with(Instant::now) + FINISH
    }

    /// Everything is over.
    pub(super) fn finished(self) {
        // Nobody hears it unless an end had begun.
        let _ = self.events.send(Event::Finished);
    }
}

impl Shared {
    fn control(
        &self,
        events: &Receiver<Event>,
        handle: &ServerHandle,
        program: &dyn Program,
        drain: Duration,
    ) {
        let Ok(Event::Signal(signal)) = events.recv() else { return };
        self.started.store(true, Ordering::SeqCst);
        if drain.is_zero() {
            log::info!("stopping on signal {signal}");
            systemd::stopping("stopping");
        } else {
            let seconds = drain.as_secs_f64();
            let count = handle.stats().in_service;
            log::info!("draining on signal {signal}: {count} in service have {seconds} s");
            systemd::stopping(&draining(handle));
            // The limit of a time limit keeps this within what a clock can tell.
            let end = Instant::now() + drain;
            self.stop_at(end);
            handle.drain();
            loop {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    log::warn!("{} did not finish in time", handle.stats().in_service);
                    break;
                }
                match events.recv_timeout(left.min(STATUS)) {
                    Err(RecvTimeoutError::Timeout) => systemd::status(&draining(handle)),
                    Ok(Event::Signal(signal)) => {
                        log::info!("stopping on signal {signal}");
                        break;
                    }
                    Ok(Event::Finished) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
        let now = Instant::now();
        self.stop_at(now);
        program.stopping();
        handle.stop();
        let grace = program.grace();
        loop {
            match events.recv_timeout((now + grace).saturating_duration_since(Instant::now())) {
                Ok(Event::Signal(_)) => {}
                Ok(Event::Finished) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    log::warn!("a file was held up; its transfer is reset");
                    process::exit(0);
                }
            }
        }
    }

    fn stop_at(&self, time: Instant) {
        *self.stop_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
    }
}

fn draining(handle: &ServerHandle) -> String {
    format!("draining: {} in service", handle.stats().in_service)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Failure::new("cannot start a thread", reason(&error)))
}
