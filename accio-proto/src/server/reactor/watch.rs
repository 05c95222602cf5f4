//! Finds out which workers are held up in the kernel, so that others can be started.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// No thread works here.
const VACANT: u64 = u64::MAX;
/// The thread waits for an event.
const IDLE: u64 = 0;

/// A worker's turn takes well under a millisecond of CPU time. One that takes this many ticks of
/// the front thread is held up.
const HELD_AFTER: u64 = 2;

/// What every worker is at, written by itself and read by the front thread at each tick.
///
/// A turn costs its worker two stores: no lock and no shared counter.
#[derive(Debug)]
pub(super) struct Watch {
    /// Counts the ticks, from 1.
    tick: AtomicU64,
    /// The front thread ticks: some worker was busy lately.
    ticking: AtomicBool,
    /// The tick in which each worker began its turn, [`IDLE`] or [`VACANT`].
    workers: Box<[Stamp]>,
}

/// On a cache line of its own, since each is written by another thread.
#[derive(Debug)]
#[repr(align(64))]
struct Stamp(AtomicU64);

/// What the front thread learns from a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    pub(super) idle: usize,
    pub(super) busy: usize,
    /// Those of the busy ones that are held up.
    pub(super) held: usize,
}

impl Load {
    /// How many workers to start, so that `base` of them are not held up. Whoever is idle is enough.
    pub(super) fn missing(self, base: usize) -> usize {
        if self.idle > 0 || self.held == 0 {
            return 0;
        }
        // When all are held up, the next ones will be too: doubling finds a free one soon.
        let wanted = if self.held == self.busy { 2 * self.busy } else { base + self.held };
        wanted.saturating_sub(self.busy)
    }
}

impl Watch {
    /// For at most `limit` workers.
    pub(super) fn new(limit: usize) -> Self {
        let workers = (0..limit).map(|_| Stamp(AtomicU64::new(VACANT))).collect();
        Watch { tick: AtomicU64::new(1), ticking: AtomicBool::new(false), workers }
    }

    /// A place for one more worker, idle at first; `None` at the limit. Only the front thread calls
    /// it.
    pub(super) fn join(&self) -> Option<usize> {
        let is_vacant = |stamp: &Stamp| stamp.0.load(Ordering::Acquire) == VACANT;
        let place = self.workers.iter().position(is_vacant)?;
        self.workers[place].0.store(IDLE, Ordering::Release);
        Some(place)
    }

    /// The worker has ended.
    pub(super) fn leave(&self, place: usize) {
        self.workers[place].0.store(VACANT, Ordering::Release);
    }

    /// The worker begins a turn. Returns whether the front thread must be woken to start ticking.
    pub(super) fn begin(&self, place: usize) -> bool {
        self.workers[place].0.store(self.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        // Pairs with the fence in `tick`: either that one sees the turn, or this one sees that
        // nobody ticks.
        fence(Ordering::SeqCst);
        !self.ticking.load(Ordering::Relaxed) && !self.ticking.swap(true, Ordering::Relaxed)
    }

    /// The worker's turn is over.
    pub(super) fn end(&self, place: usize) {
        self.workers[place].0.store(IDLE, Ordering::Relaxed);
    }

    /// Whether the front thread must tick.
    pub(super) fn is_ticking(&self) -> bool {
        self.ticking.load(Ordering::Relaxed)
    }

    /// Counts a tick, and looks at every worker.
    pub(super) fn tick(&self) -> Load {
        let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        self.load(now)
    }

    /// Stops ticking, unless a worker is busy. Returns whether it did.
    pub(super) fn pause(&self) -> bool {
        self.ticking.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let is_busy = self.load(0).busy > 0;
        if is_busy {
            self.ticking.store(true, Ordering::Relaxed);
        }
        !is_busy
    }

    /// Whether every worker has ended.
    pub(super) fn is_vacant(&self) -> bool {
        self.workers.iter().all(|stamp| stamp.0.load(Ordering::Acquire) == VACANT)
    }

    fn load(&self, now: u64) -> Load {
        let mut load = Load::default();
        for stamp in &self.workers {
            match stamp.0.load(Ordering::Acquire) {
                VACANT => {}
                IDLE => load.idle += 1,
                began => {
                    load.busy += 1;
                    load.held += usize::from(now >= began + HELD_AFTER);
                }
            }
        }
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_of_two_ticks_is_held_up_and_a_fresh_one_is_not() {
        let watch = Watch::new(3);
        let [first, second] = [watch.join().unwrap(), watch.join().unwrap()];
        assert_eq!(watch.tick(), Load { idle: 2, busy: 0, held: 0 });
        assert!(watch.begin(first), "the first turn wakes the front thread");
        assert!(!watch.begin(second));
        watch.end(second);
        assert_eq!(watch.tick(), Load { idle: 1, busy: 1, held: 0 });
        assert_eq!(watch.tick(), Load { idle: 1, busy: 1, held: 1 });
        watch.end(first);
        watch.begin(first);
        assert_eq!(watch.tick(), Load { idle: 1, busy: 1, held: 0 });
    }

    #[test]
    fn ticks_pause_only_when_nobody_is_busy() {
        let watch = Watch::new(1);
        let place = watch.join().unwrap();
        watch.begin(place);
        assert!(!watch.pause() && watch.is_ticking());
        watch.end(place);
        assert!(watch.pause() && !watch.is_ticking());
        assert!(watch.begin(place), "the next turn starts them again");
        assert!(!watch.begin(place));
    }

    #[test]
    fn workers_are_started_for_those_held_up_while_none_is_idle() {
        let missing = |idle, busy, held| Load { idle, busy, held }.missing(2);
        assert_eq!(missing(0, 2, 0), 0, "busy with content");
        assert_eq!(missing(1, 2, 2), 0, "one is free");
        assert_eq!(missing(0, 2, 1), 1);
        assert_eq!(missing(0, 2, 2), 2);
        assert_eq!(missing(0, 4, 4), 4);
        assert_eq!(missing(0, 5, 3), 0);
    }

    #[test]
    fn places_are_given_out_up_to_the_limit_and_again() {
        let watch = Watch::new(2);
        assert_eq!((watch.join(), watch.join(), watch.join()), (Some(0), Some(1), None));
        watch.leave(0);
        assert_eq!(watch.join(), Some(0));
    }
}
