//! Shares the CPUs of this machine between all jobs of this process that use them. A job that only
//! waits for a slow program leaves its CPU idle, so further jobs start while CPUs are idle.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Interval at which the idle time of the CPUs is read.
const INTERVAL: Duration = Duration::from_millis(300);
/// Share of idle time above which a further job may start.
const IDLE: f64 = 0.3;
/// Maximum number of concurrent jobs for each place.
const MOST: usize = 4;
/// Interval between the starts of jobs that wait, on an idle and on a busy machine: starting an
/// interpreter takes CPU time.
const PACE: (Duration, Duration) = (Duration::from_millis(8), Duration::from_millis(30));

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// The use of the CPUs.
struct State {
    /// Number of jobs that may always run.
    places: usize,
    /// Maximum number of jobs.
    most: usize,
    /// Number of running jobs.
    working: usize,
    /// The last reading: when, idle and total time of all CPUs.
    read: (Instant, u64, u64),
    /// Share of idle time before the last reading.
    idle: f64,
    /// Whether a further job has started since the last reading.
    has_started: bool,
    /// When the last waiting job was started.
    paced: Instant,
}

/// Interval at which one of the runs with waiting jobs tries to start one.
const TRIES: Duration = Duration::from_millis(5);
/// Shortest interval between the attempts of the same run.
const RETRY: Duration = Duration::from_millis(10);

/// Number of runs with waiting jobs.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// A run whose next job waits for a place, until it is dropped.
#[derive(Debug)]
pub(crate) struct WaitingRun(());

impl WaitingRun {
    pub(crate) fn new() -> WaitingRun {
        WAITING.fetch_add(1, Ordering::Relaxed);
        WaitingRun(())
    }

    /// Returns when to try again. The more runs wait, the less often each of them tries: dozens that
    /// try all the time would use a CPU.
    pub(crate) fn retry_after(&self) -> Duration {
        (TRIES * WAITING.load(Ordering::Relaxed)).max(RETRY)
    }
}

impl Drop for WaitingRun {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sets the number of concurrent jobs instead of deriving it from the CPUs and their idle time.
pub fn set_places(places: usize) {
    let mut state = state();
    if let Some(state) = &mut *state {
        (state.places, state.most) = (places, places);
    }
}

/// Returns whether a job that uses the CPU may start now; if so, [`ended`] must be called at its
/// end.
pub(crate) fn try_start() -> bool {
    let mut state = state();
    let Some(state) = &mut *state else { return true };
    state.read_idle_time();
    let further = state.working < state.most && state.idle > IDLE && !state.has_started;
    if state.working >= state.places && !further {
        return false;
    }
    state.has_started |= state.working >= state.places;
    state.working += 1;
    true
}

/// Returns whether a job that mostly waits may start now.
pub(crate) fn try_start_waiting() -> bool {
    let mut state = state();
    let Some(state) = &mut *state else { return true };
    state.read_idle_time();
    let pace = if state.idle > IDLE { PACE.0 } else { PACE.1 };
    let may_start = state.paced.elapsed() >= pace;
    if may_start {
        state.paced = Instant::now();
    }
    may_start
}

/// Records the end of a job for which [`try_start`] returned true.
pub(crate) fn ended() {
    if let Some(state) = &mut *state() {
        state.working = state.working.saturating_sub(1);
    }
}

impl State {
    fn new() -> State {
        let places = thread::available_parallelism().map_or(2, usize::from);
        let now = Instant::now();
        let (idle, total) = cpu_times();
        State {
            places,
            most: places * MOST,
            working: 0,
            read: (now, idle, total),
            idle: 0.0,
            has_started: false,
            paced: now,
        }
    }

    fn read_idle_time(&mut self) {
        let (at, idle, total) = self.read;
        if at.elapsed() < INTERVAL {
            return;
        }
        let (now_idle, now_total) = cpu_times();
        let passed = now_total.saturating_sub(total).max(1);
        self.idle = now_idle.saturating_sub(idle) as f64 / passed as f64;
        self.read = (Instant::now(), now_idle, now_total);
        self.has_started = false;
    }
}

/// Returns the idle and the total time of all CPUs, in clock ticks.
fn cpu_times() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let times: Vec<u64> =
        line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let idle = times.iter().skip(3).take(2).sum();
    // The times of guests, after the eighth, are included in those of users.
    (idle, times.iter().take(8).sum())
}

fn state() -> MutexGuard<'static, Option<State>> {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    state.get_or_insert_with(State::new);
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_runs_wait_the_less_often_each_of_them_tries() {
        let first = WaitingRun::new();
        assert_eq!(first.retry_after(), RETRY);
        let others: Vec<WaitingRun> = (0..39).map(|_| WaitingRun::new()).collect();
        assert_eq!(first.retry_after(), TRIES * 40);
        drop(others);
        assert_eq!(first.retry_after(), RETRY);
    }

    #[test]
    fn a_place_is_free_again_when_its_job_has_ended() {
        set_places(2);
        assert!(try_start() && try_start());
        assert!(!try_start());
        ended();
        assert!(try_start());
        assert!(!try_start());
        let (idle, total) = cpu_times();
        assert!(idle <= total);
    }
}
