//! A lane: a queue of jobs that may block, and the threads that run them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::program_log as log;

/// A queue and its threads. A job that finds no idle thread starts one, up to a limit.
///
/// The queue needs no bound of its own, because a connection has at most one job at a time.
#[derive(Debug)]
pub(super) struct Lane<J> {
    state: Mutex<State<J>>,
    /// Notified when a job is queued or the lane is closed.
    work: Condvar,
    /// Notified when the last thread ends.
    ended: Condvar,
}

#[derive(Debug)]
struct State<J> {
    jobs: VecDeque<J>,
    /// Maximum number of threads.
    limit: usize,
    threads: usize,
    /// Number of threads that wait for a job.
    idle: usize,
    closed: bool,
}

impl<J> Lane<J> {
    /// Creates a lane without threads; the first job starts one.
    pub(super) fn new(limit: usize) -> Self {
        let state = State { jobs: VecDeque::new(), limit, threads: 0, idle: 0, closed: false };
        Lane { state: Mutex::new(state), work: Condvar::new(), ended: Condvar::new() }
    }

    /// Starts a thread before there is a job for it.
    pub(super) fn start(&self, start: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.lock().threads += 1;
        start().inspect_err(|_| self.lock().threads -= 1)
    }

    /// Queues a job. If that requires another thread, calls `start`; the new thread must call
    /// [`take`](Lane::take) until it returns false, and then [`leave`](Lane::leave).
    ///
    /// Returns the job if the lane is closed, and all queued jobs if the lane has no thread and none
    /// can be started.
    pub(super) fn push(
        &self,
        job: J,
        start: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Vec<J>> {
        let starts = {
            let mut state = self.lock();
            if state.closed {
                return Err(vec![job]);
            }
            state.jobs.push_back(job);
            let starts = state.jobs.len() > state.idle && state.threads < state.limit;
            state.threads += usize::from(starts);
            starts
        };
        if !starts {
            self.work.notify_one();
            return Ok(());
        }
        let Err(error) = start() else { return Ok(()) };
        log::debug!("cannot start a thread: {error}");
        let mut state = self.lock();
        state.threads -= 1;
        // If there are other threads, the job only waits longer. If one of them is being started at
        // the same time and that fails too, its caller gets both jobs.
        match state.threads {
            0 => Err(state.jobs.drain(..).collect()),
            _ => Ok(()),
        }
    }

    /// Waits for jobs and moves up to `count` of them to `jobs`, oldest first. Returns false if the
    /// lane is closed and empty.
    pub(super) fn take(&self, count: usize, jobs: &mut Vec<J>) -> bool {
        let mut state = self.lock();
        if state.jobs.is_empty() && !state.closed {
            state.idle += 1;
            let waiting = |state: &mut State<J>| state.jobs.is_empty() && !state.closed;
            let woken = self.work.wait_while(state, waiting);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
        let count = count.min(state.jobs.len());
        jobs.extend(state.jobs.drain(..count));
        count > 0
    }

    /// Returns whether no job is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().jobs.is_empty()
    }

    /// Records that a thread has ended.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads == 0 {
            self.ended.notify_all();
        }
    }

    /// Allows `count` threads in addition to the existing ones, which may be stuck.
    pub(super) fn allow_more(&self, count: usize) {
        let mut state = self.lock();
        state.limit = state.limit.max(state.threads + count);
    }

    /// Stops accepting jobs; threads end once the queue is empty.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// Waits until all threads have ended, or until `deadline`. Returns whether they have.
    pub(super) fn wait_ended(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let running = |state: &mut State<J>| state.threads > 0;
        let ended = self.ended.wait_timeout_while(self.lock(), left, running);
        ended.unwrap_or_else(PoisonError::into_inner).0.threads == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Each change is a few assignments, so the state is consistent even if another thread
        // panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    fn refuse() -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    #[test]
    fn jobs_start_threads_up_to_the_limit_then_queue_in_order() {
        let lane = Lane::new(2);
        let started = Cell::new(0);
        let start = || {
            started.set(started.get() + 1);
            Ok(())
        };
        (1..=5).for_each(|job| lane.push(job, start).unwrap());
        assert_eq!(started.get(), 2);
        let mut jobs = Vec::new();
        assert!(lane.take(1, &mut jobs));
        assert_eq!(jobs, [1]);
        assert!(lane.take(9, &mut jobs), "a group takes all waiting jobs without waiting for more");
        assert_eq!(jobs, [1, 2, 3, 4, 5]);
        assert!(lane.is_empty());
    }

    #[test]
    fn returns_a_job_only_if_no_thread_would_run_it() {
        let lane = Lane::new(2);
        assert_eq!(lane.push(1, refuse), Err(vec![1]));
        assert!(lane.is_empty());
        lane.push(2, || Ok(())).unwrap();
        lane.push(3, refuse).unwrap();
        lane.close();
        assert_eq!(lane.push(4, || Ok(())), Err(vec![4]));
        let mut jobs = Vec::new();
        assert!(lane.take(9, &mut jobs), "jobs queued before the close are still run");
        assert_eq!(jobs, [2, 3]);
        assert!(!lane.take(9, &mut jobs));
        assert!(!lane.wait_ended(Instant::now()));
        lane.leave();
        assert!(lane.wait_ended(Instant::now()));
    }

    #[test]
    fn returns_every_job_if_several_threads_fail_to_start_at_the_same_time() {
        let lane = Lane::new(2);
        let pushed = lane.push(1, || {
            lane.push(2, refuse).unwrap();
            refuse()
        });
        assert_eq!(pushed, Err(vec![1, 2]));
        assert!(lane.is_empty());
    }

    #[test]
    fn more_threads_can_be_allowed_in_addition_to_stuck_ones() {
        let lane = Lane::new(2);
        let started = Cell::new(0);
        let start = || {
            started.set(started.get() + 1);
            Ok(())
        };
        (1..=3).for_each(|job| lane.push(job, start).unwrap());
        assert_eq!(started.get(), 2);
        lane.allow_more(1);
        (4..=5).for_each(|job| lane.push(job, start).unwrap());
        assert_eq!(started.get(), 3);
    }

    #[test]
    fn wakes_an_idle_thread_instead_of_starting_another() {
        let lane = Lane::new(8);
        let started = Cell::new(0);
        std::thread::scope(|scope| {
            let lane = &lane;
            let work = move || {
                let mut done = Vec::new();
                while lane.take(1, &mut done) {}
                lane.leave();
                done
            };
            let start = || {
                started.set(started.get() + 1);
                Ok(())
            };
            lane.push(1, start).unwrap();
            let thread = scope.spawn(work);
            for job in 2..=20 {
                let is_idle = || {
                    let state = lane.lock();
                    state.idle == 1 && state.jobs.is_empty()
                };
                while !is_idle() {
                    std::thread::yield_now();
                }
                lane.push(job, start).unwrap();
            }
            lane.close();
            assert_eq!(thread.join().unwrap(), (1..=20).collect::<Vec<_>>());
            assert!(lane.wait_ended(Instant::now() + Duration::from_secs(5)));
        });
        assert_eq!(started.get(), 1);
    }
}
