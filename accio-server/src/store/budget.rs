//! One budget of memory for all uploads: whoever has no room waits, and TCP makes its peer wait.
//!
//! A store wants its parts whole, so an upload holds what has come of one until there is enough to
//! send. If all of them waited like that for memory that the others hold, none would ever go on.
//! So the bytes are given out as a bank gives credit: only when, afterwards, there is still an
//! upload that could get the rest of its part. It can be filled, is sent, and frees at least as
//! much as any other upload may need. What is on its way to the store comes back by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::parts::PART;

/// The smallest step that memory is given out in.
const STEP: usize = 16 << 10;

/// The largest; it divides [`PART`].
const LARGEST_STEP: usize = 1 << 20;

/// The memory of all uploads together.
#[derive(Debug)]
pub(super) struct Budget {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// On its way to the store: it will be free, whatever any client does.
    leaving: usize,
    /// How many uploads still need so much for a part that can be sent, of those that hold some.
    needs: BTreeMap<usize, usize>,
    /// The most that was ever in use.
    #[cfg(test)]
    peak: usize,
    total: usize,
    closed: bool,
}

/// The server is stopping: nobody gets memory any more.
#[derive(Debug)]
pub(super) struct Closed;

/// What one upload holds of the part it is filling.
#[derive(Debug)]
pub(super) struct Claim {
    budget: Arc<Budget>,
    held: usize,
}

/// Memory of a part that is on its way to the store; free again when dropped.
#[derive(Debug)]
pub(super) struct Leaving {
    budget: Arc<Budget>,
    held: usize,
}

impl Budget {
    /// Of `total` bytes; at least a part is needed, or nothing would move.
    pub(super) fn new(total: usize) -> Arc<Self> {
        let total = total.max(PART);
        let state = State {
            free: total,
            leaving: 0,
            needs: BTreeMap::new(),
            #[cfg(test)]
            peak: 0,
            total,
            closed: false,
        };
        Arc::new(Budget { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Nobody waits any longer.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn total(&self) -> usize {
        self.lock().total
    }

    #[cfg(test)]
    pub(super) fn peak(&self) -> usize {
        self.lock().peak
    }

    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        let state = self.lock();
        state.total - state.free
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives `step` bytes to an upload that holds `held`, if everybody can still go on.
    fn give(&mut self, held: usize, step: usize) -> bool {
        if step > self.free {
            return false;
        }
        self.replace(held, held + step);
        self.free -= step;
        let least = self.needs.keys().next().copied().unwrap_or(0);
        if least <= self.free + self.leaving {
            #[cfg(test)]
            {
                self.peak = self.peak.max(self.total - self.free);
            }
            return true;
        }
        self.replace(held + step, held);
        self.free += step;
        false
    }

    fn replace(&mut self, old: usize, new: usize) {
        // Who holds nothing needs nothing back, and stands in nobody's way.
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
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Claim { budget: Arc::clone(budget), held: 0 }
    }

    /// Gets the next step, waiting for it when the part cannot be sent yet; how many bytes it is,
    /// or none when the part is to be sent as it is.
    pub(super) fn grow(&mut self) -> Result<Option<usize>, Closed> {
        let step = self.held.clamp(STEP, LARGEST_STEP);
        let budget = &*self.budget;
        let mut state = budget.lock();
        loop {
            if state.closed {
                return Err(Closed);
            }
            if state.give(self.held, step) {
                self.held += step;
                return Ok(Some(step));
            }
            if self.held >= PART {
                return Ok(None);
            }
            state = budget.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The part is on its way.
    pub(super) fn leave(&mut self) -> Leaving {
        let held = std::mem::take(&mut self.held);
        let mut state = self.budget.lock();
        state.replace(held, 0);
        state.leaving += held;
        drop(state);
        self.budget.changed.notify_all();
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
        self.budget.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn steps_fill_a_part_exactly() {
        let budget = Budget::new(2 * PART);
        let mut claim = Claim::new(&budget);
        let mut held = 0;
        while held < PART {
            held += claim.grow().unwrap().unwrap();
        }
        assert_eq!(held, PART);
        drop(claim.leave());
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn all_fill_their_parts_at_once_with_memory_for_one_and_a_half() {
        const UPLOADS: usize = 24;
        let budget = Budget::new(PART + PART / 2);
        let start = Arc::new(Barrier::new(UPLOADS));
        let (done, finished) = mpsc::channel();
        for _ in 0..UPLOADS {
            let (budget, start, done) = (Arc::clone(&budget), Arc::clone(&start), done.clone());
            thread::spawn(move || {
                let mut claim = Claim::new(&budget);
                // Everybody holds some of a part before anybody goes on.
                claim.grow().unwrap();
                start.wait();
                for _ in 0..3 {
                    let mut held = claim.held;
                    while held < PART {
                        held += claim.grow().unwrap().unwrap();
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
        assert!(budget.peak() <= PART + PART / 2, "{budget:?}");
    }

    #[test]
    fn a_full_part_is_sent_rather_than_waited_for() {
        let budget = Budget::new(PART);
        let mut claim = Claim::new(&budget);
        while claim.held < PART {
            claim.grow().unwrap();
        }
        assert!(claim.grow().unwrap().is_none());
    }

    #[test]
    fn a_stop_ends_every_wait() {
        let budget = Budget::new(PART);
        let mut all = Claim::new(&budget);
        while all.grow().unwrap().is_some() {}
        let waiting = {
            let mut claim = Claim::new(&budget);
            thread::spawn(move || claim.grow().is_err())
        };
        budget.close();
        assert!(waiting.join().unwrap());
    }
}
