//! The threads of a server that gives each session one: how many there are, and who is free.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::sys::signal::Signal;
use crate::tuning::server::IDLE_THREADS;

/// Threads that each take one job after another, and the jobs on the way to them.
///
/// A job is only given when a thread is free for it, so none ever waits for another job's end.
#[derive(Debug)]
pub(super) struct ThreadPool<J> {
    limit: usize,
    state: Mutex<State<J>>,
    /// There is a job, or there will be no more.
    work: Condvar,
    /// The last thread has gone.
    gone: Condvar,
    /// Raised for whoever was told that all are busy, when one no longer is.
    freed: Signal,
}

#[derive(Debug)]
struct State<J> {
    /// Threads there are; at most the limit.
    threads: usize,
    /// Those that wait for a job, or are about to; never fewer than there are jobs.
    idle: usize,
    jobs: VecDeque<J>,
    /// Somebody waits for `freed`.
    asked: bool,
    /// No more jobs will come.
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

    /// Whether a job can be given. Starts a thread by `start`, which is to run
    /// [`next`](ThreadPool::next), when none is free and there may be more. If the answer is no,
    /// [`freed`](ThreadPool::freed) will tell.
    ///
    /// # Errors
    ///
    /// What `start` says; the answer is no.
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

    /// Asks to be told by [`freed`](ThreadPool::freed) when the next thread has done its job.
    pub(super) fn ask(&self) {
        self.lock().asked = true;
    }

    /// Becomes readable when it was asked for and a thread has become free.
    pub(super) fn freed(&self) -> BorrowedFd<'_> {
        self.freed.as_fd()
    }

    /// Forgets that a thread has become free.
    pub(super) fn clear_freed(&self) {
        self.freed.clear();
    }

    /// Gives a job to a free thread, of which there must be one.
    pub(super) fn give(&self, job: J) {
        self.lock().jobs.push_back(job);
        self.work.notify_one();
    }

    /// The next job of a free thread; `None` when there will be none.
    pub(super) fn next(&self) -> Option<J> {
        let waiting = |state: &mut State<J>| state.jobs.is_empty() && !state.closed;
        let state = self.work.wait_while(self.lock(), waiting);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.idle -= 1;
        state.jobs.pop_front()
    }

    /// A thread has done its job. Whether it is to ask for the [`next`](ThreadPool::next) one; if not,
    /// enough others are idle.
    pub(super) fn done(&self) -> bool {
        let mut state = self.lock();
        let stays = !state.closed && state.idle < IDLE_THREADS;
        if stays {
            state.idle += 1;
            self.tell(&mut state);
        }
        stays
    }

    /// A thread has come to its end, with a job or without.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        state.threads -= 1;
        self.tell(&mut state);
        if state.threads == 0 {
            self.gone.notify_all();
        }
    }

    /// No more jobs come: threads end with what they do now.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    /// Waits until all threads have come to their end.
    pub(super) fn wait(&self) {
        drop(self.gone.wait_while(self.lock(), |state| state.threads > 0));
    }

    fn tell(&self, state: &mut State<J>) {
        if std::mem::take(&mut state.asked) {
            self.freed.raise();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        // Each change is a few assignments, so a panic elsewhere leaves the state whole.
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

    /// What the thread that is told does, without one.
    fn is_told(pool: &ThreadPool<u32>) -> bool {
        let freed = pool.freed();
        let mut fds = [crate::sys::wait::readable(&freed)];
        let told = crate::sys::wait::wait(&mut fds, Some(std::time::Instant::now())).unwrap() > 0;
        pool.clear_freed();
        told
    }

    #[test]
    fn threads_are_started_up_to_the_limit_and_no_job_waits_for_another() {
        let pool = ThreadPool::new(2).unwrap();
        assert!(pool.is_free(yes).unwrap());
        assert!(pool.is_free(unneeded).unwrap());
        pool.give(1);
        assert!(pool.is_free(yes).unwrap(), "the first one has a job");
        pool.give(2);
        assert!(!pool.is_free(unneeded).unwrap(), "two is the limit");
        assert_eq!((pool.next(), pool.next()), (Some(1), Some(2)));
        assert!(!pool.is_free(unneeded).unwrap() && !is_told(&pool));
        assert!(pool.done() && is_told(&pool), "one is free again");
        assert!(pool.is_free(unneeded).unwrap());
        assert!(pool.done() && !is_told(&pool), "nobody asked");
    }

    #[test]
    fn a_thread_that_cannot_be_started_counts_for_nothing() {
        let pool = ThreadPool::new(2).unwrap();
        for _ in 0..5 {
            pool.is_free(no).unwrap_err();
        }
        assert!(pool.is_free(yes).unwrap());
        pool.give(1);
        pool.is_free(no).unwrap_err();
        assert_eq!(pool.next(), Some(1));
        assert!(!is_told(&pool));
        pool.leave();
        assert!(is_told(&pool), "who waits hears that there is one less");
        pool.wait();
    }

    #[test]
    fn no_more_than_a_few_wait_for_work_and_all_go_at_the_end() {
        let pool = ThreadPool::new(100).unwrap();
        for job in 0..50 {
            assert!(pool.is_free(yes).unwrap());
            pool.give(job);
        }
        for job in 0..50 {
            assert_eq!(pool.next(), Some(job));
        }
        let stay = (0..50).filter(|_| pool.done()).count();
        assert_eq!(stay, IDLE_THREADS);
        (0..50 - IDLE_THREADS).for_each(|_| pool.leave());
        pool.give(7);
        pool.close();
        assert_eq!(pool.next(), Some(7), "a job that was given is done");
        assert!(!pool.done());
        for _ in 1..IDLE_THREADS {
            assert_eq!(pool.next(), None);
        }
        (0..IDLE_THREADS).for_each(|_| pool.leave());
        pool.wait();
    }
}
