//! Detects workers that are blocked in the kernel, so that others can be started.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// The slot has no thread.
const VACANT: u64 = u64::MAX;
/// The thread waits for an event.
const IDLE: u64 = 0;

/// Number of ticks after which a turn counts as blocked if no worker has begun another turn since,
/// and the process hardly uses a CPU. A turn needs less than a millisecond of CPU time, or a few with a digest.
const HELD_AFTER: u64 = 2;

/// Number of ticks after which a turn counts as blocked in any case. While other workers make
/// progress or use a CPU, a thread is more likely waiting for a CPU than for a disk.
const STUCK_AFTER: u64 = 10;

/// Number of ticks without a blocked worker after which a worker started for one ends.
const CALM_AFTER: u64 = 50;

/// The state of every worker, written by the worker and read by the front thread at each tick.
///
/// A turn costs its worker two stores: no lock and no shared counter.
#[derive(Debug)]
pub(super) struct Watch {
    /// The number of the current tick, starting at 1.
    tick: AtomicU64,
    /// Whether the front thread ticks, because some worker was busy recently.
    ticking: AtomicBool,
    /// The last tick that found a blocked worker.
    blocked_at: AtomicU64,
    /// For each worker, the tick in which its turn began, [`IDLE`] or [`VACANT`].
    workers: Box<[Stamp]>,
}

/// Aligned to a cache line, because each stamp is written by a different thread.
#[derive(Debug)]
#[repr(align(64))]
struct Stamp(AtomicU64);

/// The numbers of idle, busy and blocked workers at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    pub(super) idle: usize,
    pub(super) busy: usize,
    /// Busy workers whose turn has lasted for [`HELD_AFTER`] ticks.
    pub(super) held: usize,
    /// Busy workers whose turn has lasted for [`STUCK_AFTER`] ticks.
    pub(super) stuck: usize,
    /// Whether the process used a CPU most of the time since the last tick.
    pub(super) running: bool,
}

impl Load {
    /// Returns the number of workers that count as blocked.
    fn blocked(self) -> usize {
        if self.held == self.busy && !self.running { self.held } else { self.stuck }
    }

    /// Returns how many workers to start so that `base` of them are not blocked; 0 if one is idle.
    pub(super) fn missing(self, base: usize) -> usize {
        let blocked = self.blocked();
        if self.idle > 0 || blocked == 0 {
            return 0;
        }
        // If all workers are blocked, the next ones will probably be too; doubling soon finds a
        // free one.
        let wanted = if blocked == self.busy { 2 * self.busy } else { base + blocked };
        wanted.saturating_sub(self.busy)
    }
}

impl Watch {
    /// Creates the state for at most `limit` workers.
    pub(super) fn new(limit: usize) -> Self {
        let workers = (0..limit).map(|_| Stamp(AtomicU64::new(VACANT))).collect();
        Watch {
            tick: AtomicU64::new(1),
            ticking: AtomicBool::new(false),
            blocked_at: AtomicU64::new(0),
            workers,
        }
    }

    /// Reserves a place for one more worker, idle at first; returns `None` at the limit. Only the
    /// front thread calls this.
    pub(super) fn join(&self) -> Option<usize> {
        let is_vacant = |stamp: &Stamp| stamp.0.load(Ordering::Acquire) == VACANT;
        let place = self.workers.iter().position(is_vacant)?;
        self.workers[place].0.store(IDLE, Ordering::Release);
        Some(place)
    }

    /// Records that the worker has ended.
    pub(super) fn leave(&self, place: usize) {
        self.workers[place].0.store(VACANT, Ordering::Release);
    }

    /// Records that a turn begins. Returns true if the front thread must be woken to start ticking.
    pub(super) fn begin(&self, place: usize) -> bool {
        self.workers[place].0.store(self.tick.load(Ordering::Relaxed), Ordering::Relaxed);
        // Pairs with the fence in `pause`: either `pause` sees this turn, or this call sees that
        // ticking has stopped.
        fence(Ordering::SeqCst);
        !self.ticking.load(Ordering::Relaxed) && !self.ticking.swap(true, Ordering::Relaxed)
    }

    /// Records that the worker's turn has ended.
    pub(super) fn end(&self, place: usize) {
        self.workers[place].0.store(IDLE, Ordering::Relaxed);
    }

    /// Returns whether the front thread must tick.
    pub(super) fn is_ticking(&self) -> bool {
        self.ticking.load(Ordering::Relaxed)
    }

    /// Counts a tick and returns the state of the workers. `running` is the process's, see [`Load`].
    pub(super) fn tick(&self, running: bool) -> Load {
        let now = self.tick.fetch_add(1, Ordering::Relaxed) + 1;
        let load = Load { running, ..self.load(now) };
        if load.blocked() > 0 {
            self.blocked_at.store(now, Ordering::Relaxed);
        }
        load
    }

    /// Returns whether no worker was blocked recently, so that those started for blocked ones can
    /// end.
    pub(super) fn is_calm(&self) -> bool {
        let now = self.tick.load(Ordering::Relaxed);
        // The front thread may count a tick, and find a blocked worker, between the two loads.
        now.saturating_sub(self.blocked_at.load(Ordering::Relaxed)) > CALM_AFTER
    }

    /// Stops ticking unless a worker is busy. Returns whether it stopped.
    pub(super) fn pause(&self) -> bool {
        self.ticking.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let is_busy = self.load(0).busy > 0;
        if is_busy {
            self.ticking.store(true, Ordering::Relaxed);
        }
        !is_busy
    }

    /// Returns whether every worker has ended.
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
                    load.stuck += usize::from(now >= began + STUCK_AFTER);
                }
            }
        }
        load
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(idle: usize, busy: usize, held: usize, stuck: usize) -> Load {
        Load { idle, busy, held, stuck, running: false }
    }

    #[test]
    fn long_turns_count_as_held_and_then_as_stuck() {
        let watch = Watch::new(3);
        let [first, second] = [watch.join().unwrap(), watch.join().unwrap()];
        assert_eq!(watch.tick(false), load(2, 0, 0, 0));
        assert!(watch.begin(first), "the first turn wakes the front thread");
        assert!(!watch.begin(second));
        watch.end(second);
        assert_eq!(watch.tick(false), load(1, 1, 0, 0));
        assert_eq!(watch.tick(false), load(1, 1, 1, 0));
        (0..7).for_each(|_| assert_eq!(watch.tick(false), load(1, 1, 1, 0)));
        assert_eq!(watch.tick(false), load(1, 1, 1, 1));
        watch.end(first);
        watch.begin(first);
        assert_eq!(watch.tick(false), load(1, 1, 0, 0));
    }

    #[test]
    fn it_is_calm_some_time_after_the_last_worker_was_blocked() {
        let watch = Watch::new(2);
        let [first, second] = [watch.join().unwrap(), watch.join().unwrap()];
        watch.begin(first);
        watch.tick(false);
        watch.tick(false);
        watch.end(first);
        (0..CALM_AFTER).for_each(|_| {
            watch.begin(second);
            watch.tick(false);
            assert!(!watch.is_calm());
        });
        watch.begin(second);
        watch.tick(false);
        assert!(watch.is_calm());
    }

    #[test]
    fn it_is_not_calm_if_a_worker_is_found_blocked_during_the_check() {
        let watch = Watch::new(1);
        watch.blocked_at.store(watch.tick.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        assert!(!watch.is_calm());
    }

    #[test]
    fn ticking_pauses_only_if_no_worker_is_busy() {
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
    fn starts_workers_for_blocked_ones_unless_one_is_idle() {
        let running = |load| Load { running: true, ..load };
        assert_eq!(load(0, 2, 0, 0).missing(2), 0, "busy with content");
        assert_eq!(running(load(0, 2, 2, 0)).missing(2), 0, "they use the CPU in turn");
        assert_eq!(running(load(0, 2, 2, 2)).missing(2), 2, "one turn never needs that long");
        assert_eq!(load(1, 2, 2, 2).missing(2), 0, "one is idle");
        assert_eq!(load(0, 2, 1, 0).missing(2), 0, "the other one makes progress");
        assert_eq!(load(0, 2, 1, 1).missing(2), 1);
        assert_eq!(load(0, 2, 2, 0).missing(2), 2);
        assert_eq!(load(0, 4, 4, 1).missing(2), 4);
        assert_eq!(load(0, 5, 3, 3).missing(2), 0);
    }

    #[test]
    fn places_are_limited_and_reused() {
        let watch = Watch::new(2);
        assert_eq!((watch.join(), watch.join(), watch.join()), (Some(0), Some(1), None));
        watch.leave(0);
        assert_eq!(watch.join(), Some(0));
    }
}
