//! Shutdown: a signal, an optional time for transfers to finish, then the end of the process.

use std::io;
use std::ops::ControlFlow;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use accio_proto::{ServerHandle, os_error_text};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
};
use signal_hook::iterator::Signals;

use super::program::Program;
use super::spawn::spawn;
use crate::{Failure, log_writer};

/// The part of [`Program::grace`] that is reserved for [`Program::finish`].
const FINISH: Duration = Duration::from_millis(500);

/// How long the journal and the log may each take after that.
const LAST_MOMENT: Duration = Duration::from_millis(40);

/// Interval of status notices while draining.
const STATUS: Duration = Duration::from_secs(1);

/// The signals that end a server. SIGXCPU announces that the process has used up its CPU time.
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGQUIT, SIGXCPU];

/// Signals without a meaning for a server. By default they would kill the process and all
/// transfers.
const IGNORED: [i32; 6] = [SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO];

/// A shutdown that is set up: signals are watched but not handled yet.
#[must_use]
pub(super) struct Shutdown {
    signals: Signals,
    drain: Duration,
    on_hangup: Vec<Hangup>,
    on_notice: Box<dyn Fn(Notice<'_>) + Send>,
    before_exit: Box<dyn FnOnce(Instant) + Send>,
}

/// A text about the state of the shutdown, for a supervisor.
#[cfg_attr(
    not(all(linux_sys, feature = "operations")),
    expect(dead_code, reason = "read by systemd.rs alone")
)]
pub(super) enum Notice<'a> {
    /// The shutdown has begun.
    Stopping(&'a str),
    /// The shutdown continues.
    Status(&'a str),
}

/// A shutdown whose signals are handled.
pub(super) struct Ending {
    shared: Arc<Shared>,
    events: Sender<Event>,
}

struct Shared {
    /// Whether the first signal has arrived.
    started: Arc<AtomicBool>,
    /// When transfers are aborted, if that is known.
    stop_at: Mutex<Option<Instant>>,
}

enum Event {
    Signal(i32),
    Finished,
}

impl Shutdown {
    /// Starts watching signals. From now on, no signal that can be caught ends the process.
    pub(super) fn watch() -> Result<Self, Failure> {
        let signals = [&ENDING[..], &IGNORED, &[SIGHUP]].concat();
        Ok(Shutdown {
            signals: Signals::new(signals).map_err(cannot_watch)?,
            drain: Duration::ZERO,
            on_hangup: Vec::new(),
            on_notice: Box::new(|_| {}),
            before_exit: Box::new(|_| {}),
        })
    }

    /// Sets how long transfers may take to finish.
    #[cfg(feature = "operations")]
    pub(super) fn drain(self, drain: Duration) -> Self {
        Shutdown { drain, ..self }
    }

    /// Adds a function to call for SIGHUP, in a thread of its own. It may block: it delays no other signal.
    #[cfg(feature = "operations")]
    pub(super) fn on_hangup(mut self, act: Arc<dyn Fn() + Send + Sync>) -> Self {
        self.on_hangup.push(Hangup { act, requests: Arc::default() });
        self
    }

    /// Sets the function to call, with a deadline, if the process must exit before the server has
    /// ended.
    #[cfg(feature = "operations")]
    pub(super) fn before_exit(self, finish: Box<dyn FnOnce(Instant) + Send>) -> Self {
        Shutdown { before_exit: finish, ..self }
    }

    /// Sets the function to call with each notice.
    #[cfg(all(linux_sys, feature = "operations"))]
    pub(super) fn on_notice(self, tell: Box<dyn Fn(Notice<'_>) + Send>) -> Self {
        Shutdown { on_notice: tell, ..self }
    }

    /// Starts handling signals.
    pub(super) fn start(
        self,
        handle: ServerHandle,
        program: Arc<dyn Program>,
    ) -> Result<Ending, Failure> {
        let Shutdown { mut signals, drain, on_hangup, on_notice, before_exit } = self;
        let shared = Arc::new(Shared {
            started: Arc::new(AtomicBool::new(false)),
            stop_at: Mutex::new(None),
        });
        let (events, received) = mpsc::channel();
        let forward = events.clone();
        spawn("accio-signals", move || {
            for signal in signals.forever() {
                if ENDING.contains(&signal) {
                    // Without a receiver, the server is about to exit.
                    let _ = forward.send(Event::Signal(signal));
                } else if signal == SIGHUP {
                    on_hangup.iter().for_each(Hangup::request);
                } else {
                    log::info!("signal {signal} has no effect");
                }
            }
        })?;
        let ending = Ending { shared: Arc::clone(&shared), events };
        spawn("accio-end", move || {
            let controlled = shared.control(&received, &handle, &*program, drain, &on_notice);
            if controlled.is_break() {
                before_exit(Instant::now() + LAST_MOMENT);
                log_writer::flush(LAST_MOMENT);
                process::exit(0);
            }
        })?;
        Ok(ending)
    }
}

/// The function to call for SIGHUP, in a thread of its own, because files may not respond.
struct Hangup {
    act: Arc<dyn Fn() + Send + Sync>,
    /// The number of requests since the thread started, or 0 if there is none.
    requests: Arc<AtomicUsize>,
}

impl Hangup {
    /// Calls the function; if a call is in progress, calls it once more after that.
    fn request(&self) {
        if self.requests.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        let (act, requests) = (Arc::clone(&self.act), Arc::clone(&self.requests));
        let run = move || {
            loop {
                let before = requests.load(Ordering::SeqCst);
                act();
                let order = Ordering::SeqCst;
                if requests.compare_exchange(before, 0, order, order).is_ok() {
                    break;
                }
            }
        };
        if let Err(failure) = spawn("accio-reload", run) {
            self.requests.store(0, Ordering::SeqCst);
            log::error!("SIGHUP has no effect: {failure}");
        }
    }
}

impl Ending {
    /// Returns a flag that the first signal sets.
    #[cfg(feature = "metrics")]
    pub(super) fn started(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.started)
    }

    /// Returns when [`Program::finish`] must return, according to the signals so far.
    pub(super) fn deadline(&self) -> Instant {
        let mut stop_at = self.shared.stop_at.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a signal, the server has just ended by itself.
        *stop_at.get_or_insert_with(Instant::now) + FINISH
    }

    /// Reports that the server and the program have finished.
    pub(super) fn finished(self) {
        // The receiver waits only after a first signal.
        let _ = self.events.send(Event::Finished);
    }
}

impl Shared {
    /// Waits for the first signal and ends the server; exits the process if that takes too long.
    fn control(
        &self,
        events: &Receiver<Event>,
        handle: &ServerHandle,
        program: &dyn Program,
        drain: Duration,
        notice: &dyn Fn(Notice<'_>),
    ) -> ControlFlow<()> {
        let Ok(Event::Signal(signal)) = events.recv() else { return ControlFlow::Continue(()) };
        self.started.store(true, Ordering::SeqCst);
        if drain.is_zero() {
            log::info!("stopping on signal {signal}");
            notice(Notice::Stopping("stopping"));
        } else {
            let seconds = drain.as_secs_f64();
            let count = handle.stats().in_service;
            log::info!("draining on signal {signal}: {count} in service have {seconds} s");
            notice(Notice::Stopping(&draining(handle)));
            // The maximum time limit keeps this within the range of `Instant`.
            let end = Instant::now() + drain;
            self.stop_at(end);
            handle.drain();
            loop {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    let count = handle.stats().in_service;
                    let transfers = if count == 1 { "transfer" } else { "transfers" };
                    log::warn!("{count} {transfers} did not finish in time");
                    break;
                }
                match events.recv_timeout(left.min(STATUS)) {
                    Err(RecvTimeoutError::Timeout) => notice(Notice::Status(&draining(handle))),
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
                    log::warn!("a file is blocked; its transfer is reset");
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

fn cannot_watch(error: io::Error) -> Failure {
    Failure::new("cannot watch for signals", os_error_text(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_reload_blocks_no_signal_and_further_ones_become_one() {
        let (started, calls) = mpsc::channel();
        let (proceed, allowed) = mpsc::channel::<()>();
        let allowed = Mutex::new(allowed);
        let act = move || {
            started.send(()).unwrap();
            allowed.lock().unwrap().recv().unwrap();
        };
        let hangup = Hangup { act: Arc::new(act), requests: Arc::default() };
        let bound = Duration::from_secs(30);
        (0..5).for_each(|_| hangup.request());
        calls.recv_timeout(bound).unwrap();
        (0..5).for_each(|_| hangup.request());
        assert!(calls.try_recv().is_err(), "one call at a time");
        (0..2).for_each(|_| proceed.send(()).unwrap());
        calls.recv_timeout(bound).unwrap();
        let start = Instant::now();
        while hangup.requests.load(Ordering::SeqCst) > 0 {
            assert!(start.elapsed() < bound, "the thread ends");
            std::thread::yield_now();
        }
        assert!(calls.try_recv().is_err(), "the requests became one call");
        hangup.request();
        calls.recv_timeout(bound).unwrap();
        proceed.send(()).unwrap();
    }
}
