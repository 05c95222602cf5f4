//! Memory budget for all uploads. An upload that gets no memory waits, and TCP then makes its
//! client wait.
//!
//! A store accepts only whole parts, so an upload holds the beginning of a part until there is
//! enough to send. If every upload waited for memory held by others, none could continue. Memory is
//! therefore assigned as in the banker's algorithm: only if some upload can still get the rest of
//! its part afterwards. That part can be filled and sent, and then frees at least as much as any
//! other upload may need. Memory of parts in flight becomes free in any case.
//!
//! One eighth is reserved for the first bytes of uploads: small uploads need no more, and make
//! progress even while large ones hold all the rest.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::buffer_pool::{Buffer, BufferPool};
use crate::part_size::PART;

/// Minimum amount of memory assigned at once, in bytes.
const STEP: usize = 16 << 10;

/// Maximum amount assigned at once, in bytes; it divides [`PART`].
const LARGEST_STEP: usize = 1 << 20;

/// Maximum amount that one upload may hold of the eighth for small uploads, in bytes.
const SMALL: usize = 256 << 10;

/// The memory of all uploads together.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes for large uploads: seven eighths.
    main: usize,
    state: Mutex<State>,
    /// Notifies uploads that wait for memory.
    changed: Notify,
    pool: Arc<BufferPool>,
}

#[derive(Debug)]
struct State {
    /// Free bytes of the eighth for small uploads.
    small: usize,
    /// Free bytes of the rest; the following fields concern the rest, too.
    free: usize,
    /// Bytes in flight to the store, which become free regardless of any client.
    leaving: usize,
    /// For uploads that hold memory: the bytes that are missing for a whole part, and the number of
    /// uploads that miss that many.
    needs: BTreeMap<usize, usize>,
    /// The highest use so far.
    #[cfg(test)]
    peak: usize,
    #[cfg(test)]
    total: usize,
    closed: bool,
}

/// The server is stopping: no more memory is assigned.
#[derive(Debug)]
pub(crate) struct Closed;

/// Answer to an upload that needs memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    /// It gets this number of bytes.
    Bytes(usize),
    /// It gets nothing, but holds a whole part, which should be sent.
    Part,
    /// It gets nothing now.
    Wait,
}

/// Memory that one upload holds for the part it is filling.
#[derive(Debug)]
pub(crate) struct Claim {
    budget: Arc<Budget>,
    held: usize,
    /// Whether the memory comes from the eighth for small uploads.
    small: bool,
}

/// Memory of a part in flight to the store; freed when dropped.
#[derive(Debug)]
pub(crate) struct Leaving {
    budget: Arc<Budget>,
    held: usize,
}

impl Budget {
    /// Creates a budget of `total` bytes, or of one part and one small upload if that is more.
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let total = total.max(PART + SMALL);
        let small = (total / 8).min(total - PART);
        let state = State {
            small,
            free: total - small,
            leaving: 0,
            needs: BTreeMap::new(),
            #[cfg(test)]
            peak: 0,
            #[cfg(test)]
            total,
            closed: false,
        };
        Arc::new(Budget {
            main: total - small,
            state: Mutex::new(state),
            changed: Notify::new(),
            pool: BufferPool::new(LARGEST_STEP, total),
        })
    }

    /// Ends all current and future waits.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    /// Returns the pool that the memory comes from.
    pub(crate) fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    /// Returns the number of bytes that large uploads share.
    pub(crate) fn main(&self) -> usize {
        self.main
    }

    #[cfg(test)]
    pub(crate) fn peak(&self) -> usize {
        self.lock().peak
    }

    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        let state = self.lock();
        state.used()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Raises an upload's memory from `old` to `new` bytes, if some upload can still finish its
    /// part afterwards.
    fn give(&mut self, old: usize, new: usize) -> bool {
        let step = new - old;
        if step > self.free {
            return false;
        }
        self.replace(old, new);
        self.free -= step;
        let least = self.needs.keys().next().copied().unwrap_or(0);
        if least <= self.free + self.leaving {
            return true;
        }
        self.replace(new, old);
        self.free += step;
        false
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.total - self.free - self.small
    }

    fn replace(&mut self, old: usize, new: usize) {
        // An upload that holds nothing blocks no other.
        if old > 0
            && let Some(count) = self.needs.get_mut(&PART.saturating_sub(old))
        {
            *count -= 1;
            if *count == 0 {
                self.needs.remove(&PART.saturating_sub(old));
            }
        }
        if new > 0 {
            *self.needs.entry(PART.saturating_sub(new)).or_default() += 1;
        }
    }
}

impl Claim {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Claim { budget: Arc::clone(budget), held: 0, small: true }
    }

    /// Gets memory and returns its size in bytes. Waits if the part cannot be sent yet; returns
    /// `None` if the part should be sent as it is. Dropping the future has no effect.
    pub(crate) async fn grow(&mut self) -> Result<Option<usize>, Closed> {
        let budget = Arc::clone(&self.budget);
        let mut changed = pin!(budget.changed.notified());
        loop {
            // Register before the attempt, so that no change after it is missed.
            changed.as_mut().enable();
            match self.try_grow()? {
                Growth::Bytes(step) => return Ok(Some(step)),
                Growth::Part => return Ok(None),
                Growth::Wait => changed.as_mut().await,
            }
            changed.set(budget.changed.notified());
        }
    }

    /// Gets memory, if there is enough.
    pub(crate) fn try_grow(&mut self) -> Result<Growth, Closed> {
        let step = self.held.clamp(STEP, LARGEST_STEP);
        let budget = &*self.budget;
        let mut state = budget.lock();
        if state.closed {
            return Err(Closed);
        }
        let new = self.held + step;
        if self.small && new <= SMALL && step <= state.small {
            state.small -= step;
        } else if self.small && state.give(0, new) {
            // The upload is not small, or the eighth is used up.
            self.small = false;
            state.small += self.held;
            budget.changed.notify_waiters();
        } else if self.small || !state.give(self.held, new) {
            return Ok(if self.held >= PART { Growth::Part } else { Growth::Wait });
        }
        self.held = new;
        #[cfg(test)]
        {
            state.peak = state.peak.max(state.used());
        }
        Ok(Growth::Bytes(step))
    }

    /// Returns a buffer for the memory that was assigned.
    pub(crate) fn buffer(&self, step: usize) -> Buffer {
        self.budget.pool.get(step)
    }

    /// Moves the memory to a part in flight.
    pub(crate) fn leave(&mut self) -> Leaving {
        let held = std::mem::take(&mut self.held);
        let mut state = self.budget.lock();
        if self.small {
            // This memory is never part of a part in flight, so it is free immediately.
            state.small += held;
        } else {
            state.replace(held, 0);
            state.leaving += held;
        }
        drop(state);
        self.budget.changed.notify_waiters();
        let held = if self.small { 0 } else { held };
        self.small = true;
        Leaving { budget: Arc::clone(&self.budget), held }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.leaving -= self.held;
        state.free += self.held;
        drop(state);
        self.budget.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Gets memory; blocks the thread until there is some.
    fn grow(claim: &mut Claim) -> Result<Option<usize>, Closed> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(claim.grow())
    }

    #[test]
    fn assigned_memory_fills_a_part_exactly() {
        let budget = Budget::new(2 * PART);
        let mut claim = Claim::new(&budget);
        let mut held = 0;
        while held < PART {
            held += grow(&mut claim).unwrap().unwrap();
        }
        assert_eq!(held, PART);
        drop(claim.leave());
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn many_uploads_fill_parts_with_memory_for_less_than_two() {
        const UPLOADS: usize = 24;
        let budget = Budget::new(PART * 7 / 4);
        let start = Arc::new(Barrier::new(UPLOADS));
        let (done, finished) = mpsc::channel();
        for _ in 0..UPLOADS {
            let (budget, start, done) = (Arc::clone(&budget), Arc::clone(&start), done.clone());
            thread::spawn(move || {
                let mut claim = Claim::new(&budget);
                // Every upload holds some memory before any of them continues.
                grow(&mut claim).unwrap();
                start.wait();
                for _ in 0..3 {
                    let mut held = claim.held;
                    while held < PART {
                        held += grow(&mut claim).unwrap().unwrap();
                        thread::yield_now();
                    }
                    drop(claim.leave());
                }
                drop(claim);
                done.send(()).unwrap();
            });
        }
        for left in (0..UPLOADS).rev() {
            finished.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| {
                panic!("{} uploads wait for each other: {budget:?}", left + 1);
            });
        }
        assert_eq!(budget.in_use(), 0);
        assert!(budget.peak() <= PART * 7 / 4, "{budget:?}");
    }

    #[test]
    fn sends_a_full_part_instead_of_waiting() {
        let budget = Budget::new(PART + SMALL);
        let mut claim = Claim::new(&budget);
        while claim.held < PART {
            grow(&mut claim).unwrap();
        }
        assert!(grow(&mut claim).unwrap().is_none());
    }

    #[test]
    fn small_uploads_proceed_while_large_ones_hold_the_rest() {
        let budget = Budget::new(4 * PART);
        let mut large = Claim::new(&budget);
        let mut in_flight = Vec::new();
        while budget.lock().free >= PART {
            while large.held < PART {
                grow(&mut large).unwrap();
            }
            in_flight.push(large.leave());
        }
        while grow(&mut large).unwrap().is_some_and(|_| budget.lock().free >= LARGEST_STEP) {}
        let mut small = Claim::new(&budget);
        assert_eq!(grow(&mut small).unwrap(), Some(STEP));
        drop((small, large, in_flight));
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn close_ends_every_wait() {
        let budget = Budget::new(PART + SMALL);
        let mut all = Claim::new(&budget);
        while grow(&mut all).unwrap().is_some() {}
        let waiting = {
            let mut claim = Claim::new(&budget);
            thread::spawn(move || while grow(&mut claim).is_ok() {})
        };
        budget.close();
        waiting.join().unwrap();
    }
}
