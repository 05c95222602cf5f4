//! Groups of jobs that are faster together, such as durable commits: while some threads do a group,
//! further jobs wait for the next one. No thread waits for a group to fill up.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Maximum number of jobs in a group (16): the file system flushes the cache of the disk for each file
/// but the first, so a larger group takes longer by as much as it saves elsewhere.
const MAX_JOBS: usize = 16;

/// Maximum number of threads that do groups (4): the disk merges flushes that are requested at the same
/// time.
const MAX_THREADS: usize = 4;

/// Jobs that wait for a group.
#[derive(Debug)]
pub(super) struct Groups<T>(Mutex<Queue<T>>);

#[derive(Debug)]
struct Queue<T> {
    waiting: Vec<T>,
    /// Number of threads that do groups.
    threads: usize,
}

impl<T> Groups<T> {
    pub(super) fn new() -> Self {
        Groups(Mutex::new(Queue { waiting: Vec::new(), threads: 0 }))
    }

    /// Adds a job. Returns whether a thread must be started that calls [`next`](Groups::next) and, at
    /// its end, [`leave`](Groups::leave).
    #[must_use]
    pub(super) fn add(&self, job: T) -> bool {
        let mut queue = self.lock();
        queue.waiting.push(job);
        let starts = queue.threads < MAX_THREADS;
        queue.threads += usize::from(starts);
        starts
    }

    /// Returns the next group, if a job waits.
    pub(super) fn next(&self) -> Option<Vec<T>> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(MAX_JOBS);
        (count > 0).then(|| queue.waiting.drain(..count).collect())
    }

    /// Ends a thread. Returns whether another one must be started in its place, because jobs wait;
    /// otherwise it counts no longer, so a job that is added later needs another one.
    #[must_use]
    pub(super) fn leave(&self) -> bool {
        let mut queue = self.lock();
        let continues = !queue.waiting.is_empty();
        queue.threads -= usize::from(!continues);
        continues
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // No call under the lock panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn each_job_is_done_once_by_few_threads() {
        const THREADS: usize = 8;
        const EACH: usize = 1000;
        let groups = Groups::new();
        let (done, active) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let work = |group: Vec<usize>| {
            assert!(active.fetch_add(1, Ordering::SeqCst) < MAX_THREADS);
            assert!(!group.is_empty() && group.len() <= MAX_JOBS);
            done.lock().unwrap().extend(group);
            active.fetch_sub(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (groups, work) = (&groups, &work);
                scope.spawn(move || {
                    for job in 0..EACH {
                        let mut continues = groups.add(thread * EACH + job);
                        while continues {
                            // Each thread ends after at most two groups.
                            (0..2).map_while(|_| groups.next()).for_each(work);
                            continues = groups.leave();
                        }
                    }
                });
            }
        });
        let done = done.into_inner().unwrap();
        assert_eq!(done.len(), THREADS * EACH);
        assert_eq!(done.into_iter().collect::<BTreeSet<_>>().len(), THREADS * EACH);
        assert_eq!(groups.lock().threads, 0);
    }

    #[test]
    fn jobs_that_wait_become_one_group() {
        let groups = Groups::new();
        assert!((0..MAX_THREADS).all(|job| groups.add(job)), "a thread for each");
        assert_eq!((groups.next(), groups.next()), (Some((0..MAX_THREADS).collect()), None));
        assert!(!groups.leave());
        assert!(groups.add(100), "one thread has ended");
        assert!((1..MAX_JOBS + 3).all(|job| !groups.add(100 + job)), "all threads are busy");
        let sizes = [(); 2].map(|()| groups.next().map(|group| group.len()));
        assert_eq!(sizes, [Some(MAX_JOBS), Some(3)]);
        assert!(!groups.leave() && groups.add(200), "one thread has ended");
        assert!(groups.leave(), "another one does the last job");
        assert_eq!(groups.next(), Some(vec![200]));
        assert!((0..MAX_THREADS).all(|_| !groups.leave()));
        assert_eq!(groups.lock().threads, 0);
    }
}
