//! A pool of threads, one for each session.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::sys::signal::Signal;
use crate::tuning::server::IDLE_THREADS;

/// Threads that run one job after another, and the jobs that were assigned to them.
///
/// A job is only assigned when a thread is free, so no job ever waits for another one to end.
#[derive(Debug)]
pub(super) struct ThreadPool<J> {
    limit: usize,
    state: Mutex<State<J>>,
    /// Notified when there is a job, or when the pool is closed.
    work: Condvar,
    /// Notified when the last thread ends.
    gone: Condvar,
    /// Signals that a thread has become free after a caller found none.
    freed: Signal,
}

#[derive(Debug)]
struct State<J> {
    /// Number of threads; at most the limit.
    threads: usize,
    /// Number of threads that wait for a job or are about to; never less than the number of jobs.
    idle: usize,
    jobs: VecDeque<J>,
    /// Whether a caller waits for `freed`.
    asked: bool,
    /// Whether the pool is closed.
    closed: bool,
}

impl<J> ThreadPool<J> {
    pub(super) fn new(limit: usize) -> io::Result<Self> {
        let state =
            State { threads: 0, idle: 0, jobs: VecDeque::new(), asked: false, closed: false };
        Ok(ThreadPool {
            limit,
            state: Mutex::new(state),
            work: Condvar::new(),
            gone: Condvar::new(),
            freed: Signal::new()?,
        })
    }

    /// Returns whether a job can be assigned. If no thread is free and the limit allows it, calls
    /// `start` to start a thread, which must call [`next`](ThreadPool::next). If the result is
    /// false, [`freed`](ThreadPool::freed) becomes readable when a thread is free.
    ///
    /// # Errors
    ///
    /// Returns the error of `start`; no job can be assigned then.
    pub(super) fn is_free(&self, start: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        {
            let mut state = self.lock();
            if state.idle > state.jobs.len() {
                return Ok(true);
            }
            if state.threads == self.limit {
                state.asked = true;
                return Ok(false);
            }
            state.threads += 1;
            state.idle += 1;
        }
        start().map(|()| true).inspect_err(|_| {
            let mut state = self.lock();
            state.threads -= 1;
            state.idle -= 1;
            state.asked = true;
        })
    }

    /// Requests that [`freed`](ThreadPool::freed) becomes readable when the next thread is free.
    pub(super) fn ask(&self) {
        self.lock().asked = true;
    }

    /// Returns a descriptor that becomes readable when a thread is free, if that was requested.
    pub(super) fn freed(&self) -> BorrowedFd<'_> {
        self.freed.as_fd()
    }

    /// Resets [`freed`](ThreadPool::freed).
    pub(super) fn clear_freed(&self) {
        self.freed.clear();
    }

    /// Assigns a job to a free thread; the caller has checked that there is one.
    pub(super) fn assign(&self, job: J) {
        self.lock().jobs.push_back(job);
        self.work.notify_one();
    }

    /// Waits for the next job of a free thread; returns `None` if the thread should end.
    pub(super) fn next(&self) -> Option<J> {
        let waiting = |state: &mut State<J>| state.jobs.is_empty() && !state.closed;
        let state = self.work.wait_while(self.lock(), waiting);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.jobs.pop_front()
    }

    /// Records that a thread has finished its job. Returns whether the thread should call
    /// [`next`](ThreadPool::next); if not, enough others are idle.
    pub(super) fn done(&self) -> bool {
        let mut state = self.lock();
        let stays = !state.closed && state.idle < IDLE_THREADS;
        if stays {
            state.idle += 1;
            self.signal_freed(&mut state);
        }
        stays
    }

    /// Records that a thread ends, with or without having run a job.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.threads -= 1;
        self.signal_freed(&mut state);
        if state.threads == 0 {
            self.gone.notify_all();
        }
    }

    /// Closes the pool: threads end after their current job.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// Waits until all threads have ended, for `limit` at most. Returns whether they have.
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let waited = self.gone.wait_timeout_while(self.lock(), limit, |state| state.threads > 0);
        waited.unwrap_or_else(PoisonError::into_inner).0.threads == 0
    }

    fn signal_freed(&self, state: &mut State<J>) {
        if std::mem::take(&mut state.asked) {
            self.freed.raise();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Each change is a few assignments, so the state is consistent even if another thread
        // panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yes() -> io::Result<()> {
        Ok(())
    }

    fn no() -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn unneeded() -> io::Result<()> {
        panic!("a thread is free already")
    }

    /// Returns whether `freed` was signalled, and resets it.
    fn take_freed(pool: &ThreadPool<u32>) -> bool {
        let freed = pool.freed();
        let mut fds = [crate::sys::wait::readable(&freed)];
        let is_raised =
            crate::sys::wait::wait(&mut fds, Some(std::time::Instant::now())).unwrap() > 0;
        pool.clear_freed();
        is_raised
    }

    #[test]
    fn starts_threads_up_to_the_limit_so_that_no_job_waits() {
        let pool = ThreadPool::new(2).unwrap();
        assert!(pool.is_free(yes).unwrap());
        assert!(pool.is_free(unneeded).unwrap());
        pool.assign(1);
        assert!(pool.is_free(yes).unwrap(), "the first one has a job");
        pool.assign(2);
        assert!(!pool.is_free(unneeded).unwrap(), "two is the limit");
        assert_eq!((pool.next(), pool.next()), (Some(1), Some(2)));
        assert!(!pool.is_free(unneeded).unwrap() && !take_freed(&pool));
        assert!(pool.done() && take_freed(&pool), "one is free again");
        assert!(pool.is_free(unneeded).unwrap());
        assert!(pool.done() && !take_freed(&pool), "no caller waits");
    }

    #[test]
    fn a_thread_that_cannot_be_started_is_not_counted() {
        let pool = ThreadPool::new(2).unwrap();
        for _ in 0..5 {
            pool.is_free(no).unwrap_err();
        }
        assert!(pool.is_free(yes).unwrap());
        pool.assign(1);
        pool.is_free(no).unwrap_err();
        assert_eq!(pool.next(), Some(1));
        assert!(!take_freed(&pool));
        pool.leave();
        assert!(take_freed(&pool), "the caller must check again");
        assert!(pool.wait(Duration::from_secs(60)));
    }

    #[test]
    fn keeps_few_idle_threads_and_ends_all_when_closed() {
        let pool = ThreadPool::new(100).unwrap();
        for job in 0..50 {
            assert!(pool.is_free(yes).unwrap());
            pool.assign(job);
        }
        for job in 0..50 {
            assert_eq!(pool.next(), Some(job));
        }
        let stay = (0..50).filter(|_| pool.done()).count();
        assert_eq!(stay, IDLE_THREADS);
        (0..50 - IDLE_THREADS).for_each(|_| pool.leave());
        pool.assign(7);
        pool.close();
        assert_eq!(pool.next(), Some(7), "an assigned job is still run");
        assert!(!pool.done());
        for _ in 1..IDLE_THREADS {
            assert_eq!(pool.next(), None);
        }
        (0..IDLE_THREADS).for_each(|_| pool.leave());
        assert!(pool.wait(Duration::from_secs(60)));
    }
}
