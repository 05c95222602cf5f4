//! How a server ends: a signal, perhaps a while for the transfers in service, the end.

use std::ops::ControlFlow;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use accio_proto::ServerHandle;
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
};
use signal_hook::iterator::Signals;

use super::journal::Journal;
use super::{Program, spawn, systemd};
use crate::{Failure, log_writer, reason};

/// How long a stopped server may take to abort what is unfinished. It exits within a second, even
/// if a disk or a pipe holds a worker up.
pub(super) const GRACE: Duration = Duration::from_millis(900);

/// How much of that is for what the connections left to do.
const FINISH: Duration = Duration::from_millis(500);

/// How long the journal and the log may each take when all of that is used up.
const LAST_MOMENT: Duration = Duration::from_millis(40);

/// How often systemd is told how many transfers are left.
const STATUS: Duration = Duration::from_secs(1);

/// The signals that end a server. The last one announces that its CPU time is used up.
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGQUIT, SIGXCPU];

/// Signals that would kill the process, and every transfer with it, without having a meaning here.
const IGNORED: [i32; 6] = [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO];

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
    /// From now on, no signal kills the process that can be kept from it.
    pub(super) fn watch(drain: Duration, journal: Option<Arc<Journal>>) -> Result<Self, Failure> {
        let signals = Signals::new([&ENDING[..], &IGNORED, &[SIGHUP]].concat())
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
        let (forward, reopened) = (events.clone(), journal.clone());
        spawn("accio-signals", move || {
            for signal in signals.forever() {
                if ENDING.contains(&signal) {
                    // Without a receiver, the server is about to exit.
                    let _ = forward.send(Event::Signal(signal));
                } else if signal != SIGHUP {
                    log::info!("signal {signal} has no effect");
                } else if let Some(journal) = &reopened {
                    journal.reopen();
                }
            }
        })?;
        let ending = Ending { shared: Arc::clone(&shared), events };
        spawn("accio-end", move || {
            if shared.control(&received, &handle, &*program, drain).is_break() {
                if let Some(journal) = journal {
                    journal.finish(Instant::now() + LAST_MOMENT);
                }
                log_writer::flush(LAST_MOMENT);
                process::exit(0);
            }
        })?;
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
    /// Breaks if the server has not ended in time.
    fn control(
        &self,
        events: &Receiver<Event>,
        handle: &ServerHandle,
        program: &dyn Program,
        drain: Duration,
    ) -> ControlFlow<()> {
        let Ok(Event::Signal(signal)) = events.recv() else { return ControlFlow::Continue(()) };
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
                    Ok(Event::Finished) | Err(RecvTimeoutError::Disconnected) => {
                        return ControlFlow::Continue(());
                    }
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
                Ok(Event::Finished) | Err(RecvTimeoutError::Disconnected) => {
                    return ControlFlow::Continue(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    log::warn!("a file was held up; its transfer is reset");
                    return ControlFlow::Break(());
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
