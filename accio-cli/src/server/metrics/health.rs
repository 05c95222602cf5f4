//! Readiness check. It runs in a thread of its own, because a disk may not respond.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use accio_proto::ServerHandle;

use crate::Failure;
use crate::server::program::Program;
use crate::server::spawn::spawn;
use crate::server::sys::Wake;

/// How long a result may be reused.
const FRESH: Duration = Duration::from_millis(500);

/// How long to wait for the check before the server counts as not ready.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Health {
    program: Arc<dyn Program>,
    handle: ServerHandle,
    /// Whether the server has started to shut down.
    ending: Arc<AtomicBool>,
    /// Whether the connection with the last number has ended.
    last_ended: Arc<AtomicBool>,
    state: Mutex<State>,
    asked: Condvar,
    wake: Wake,
}

struct State {
    /// When the check that is in progress was requested.
    asked: Option<Instant>,
    last: Option<(Instant, Result<(), String>)>,
}

impl Health {
    /// Starts the thread.
    pub(super) fn start(
        handle: ServerHandle,
        program: Arc<dyn Program>,
        ending: Arc<AtomicBool>,
        last_ended: Arc<AtomicBool>,
    ) -> Result<Arc<Self>, Failure> {
        let wake = Wake::new().map_err(|error| Failure::new("cannot serve metrics", error))?;
        let state = Mutex::new(State { asked: None, last: None });
        let asked = Condvar::new();
        let health = Arc::new(Health { program, handle, ending, last_ended, state, asked, wake });
        let thread = Arc::clone(&health);
        spawn("accio-health", move || thread.run())?;
        Ok(health)
    }

    /// Returns whether the server can receive uploads and, if not, why; `None` while the check is
    /// in progress.
    pub(super) fn readiness(&self) -> Option<Result<(), String>> {
        if self.ending.load(Ordering::SeqCst) {
            return Some(Err("stopping".to_owned()));
        }
        let is_last_in_service =
            || self.handle.connections().any(|connection| connection.id == u64::MAX);
        if self.last_ended.load(Ordering::SeqCst) || is_last_in_service() {
            return Some(Err("all numbers have been used".to_owned()));
        }
        let now = Instant::now();
        let mut state = self.lock();
        if let Some((at, answer)) = &state.last
            && now.duration_since(*at) < FRESH
        {
            return Some(answer.clone());
        }
        match state.asked {
            Some(since) if now.duration_since(since) >= PATIENCE => {
                Some(Err("the disk does not answer".to_owned()))
            }
            Some(_) => None,
            None => {
                state.asked = Some(now);
                self.asked.notify_one();
                None
            }
        }
    }

    /// Returns when [`readiness`](Health::readiness) gives up on the check in progress.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        self.lock().asked.map(|since| since + PATIENCE)
    }

    fn run(&self) {
        loop {
            let mut state = self.lock();
            while state.asked.is_none() {
                state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            let answer = self.program.readiness();
            let mut state = self.lock();
            state.asked = None;
            state.last = Some((Instant::now(), answer));
            drop(state);
            self.wake.raise();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under this lock is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Health {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
