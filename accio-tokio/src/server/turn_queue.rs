//! Turns that wait for a thread for blocking work.
//!
//! Waking a thread costs more than a small upload, so a thread that has finished a turn takes the next
//! one, and there are only as many threads as cores. A turn that has waited for a tick gets a thread of
//! its own, because the others may be blocked. A thread ends after its share, even if turns wait: then
//! another one is requested, behind the other blocking work of the runtime.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time after which a turn gets a thread of its own (1 to 2 ms): the resolution of the runtime's timers.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// Turns that wait. Some threads take them; each begins when a call requests it.
#[derive(Debug)]
pub(super) struct TurnQueue<T> {
    /// Number of threads that turns do not wait for.
    parallelism: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
struct State<T> {
    waiting: VecDeque<T>,
    /// Number of threads that take turns, or will, also while they are blocked.
    threads: usize,
    /// The part of them that has taken none yet: the runtime may have no thread left.
    starting: usize,
    /// Numbers of turns added and taken so far.
    added: u64,
    taken: u64,
    /// Whether a task calls [`TurnQueue::tick`].
    is_watched: bool,
}

/// The action that the caller must take for an added turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Request {
    Nothing,
    /// Start a thread that calls [`TurnQueue::take`] and, at its end, [`TurnQueue::leave`].
    Thread,
    /// Start a task that calls [`TurnQueue::tick`] until it returns `None`.
    Watch,
}

impl<T> TurnQueue<T> {
    pub(super) fn new(parallelism: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            threads: 0,
            starting: 0,
            added: 0,
            taken: 0,
            is_watched: false,
        };
        TurnQueue { parallelism, state: Mutex::new(state) }
    }

    pub(super) fn add(&self, turn: T) -> Request {
        let mut state = self.lock();
        state.waiting.push_back(turn);
        state.added += 1;
        if state.threads < self.parallelism {
            state.threads += 1;
            state.starting += 1;
            Request::Thread
        } else if state.is_watched {
            Request::Nothing
        } else {
            state.is_watched = true;
            Request::Watch
        }
    }

    /// Returns the next turn. `is_first` tells whether it is the first call of this thread.
    pub(super) fn take(&self, is_first: bool) -> Option<T> {
        let mut state = self.lock();
        state.starting -= usize::from(is_first);
        let turn = state.waiting.pop_front();
        state.taken += u64::from(turn.is_some());
        turn
    }

    /// Ends a thread that has called [`take`](TurnQueue::take). Returns whether another one must be
    /// started in its place, because turns wait; otherwise it no longer counts.
    #[must_use]
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        let continues = !state.waiting.is_empty();
        match continues {
            true => state.starting += 1,
            false => state.threads -= 1,
        }
        continues
    }

    /// Called after each tick, with the first value that the last call returned, or 0. Returns the
    /// number of turns added so far, and the number of threads to start; `None` if no turn waits.
    pub(super) fn tick(&self, added_before: u64) -> Option<(u64, usize)> {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            state.is_watched = false;
            return None;
        }
        let late = usize::try_from(added_before.saturating_sub(state.taken)).unwrap_or(usize::MAX);
        // At most twice as many as before, because the threads may only be busy.
        let threads = late.saturating_sub(state.starting).min(state.threads.max(1));
        state.threads += threads;
        state.starting += threads;
        Some((state.added, threads))
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No call under the lock panics.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn turns_that_have_waited_for_a_tick_get_threads() {
        let queue = TurnQueue::new(2);
        let requests = [(); 6].map(|()| queue.add(()));
        assert_eq!(requests[..3], [Request::Thread, Request::Thread, Request::Watch]);
        assert_eq!(requests[3..], [Request::Nothing; 3]);
        // Both threads are blocked in their first turns.
        assert!((0..2).all(|_| queue.take(true).is_some()));
        assert_eq!(queue.tick(0), Some((6, 0)), "none has waited for a whole tick");
        assert_eq!(queue.tick(6), Some((6, 2)));
        assert_eq!(queue.tick(6), Some((6, 2)), "for four turns");
        assert_eq!(queue.tick(6), Some((6, 0)), "these four threads have not begun");
        assert!((0..2).all(|_| queue.take(true).is_some()));
        assert_eq!(queue.add(()), Request::Nothing);
        assert_eq!(queue.tick(6), Some((7, 0)), "two threads begin, and the last turn is new");
        assert_eq!(queue.tick(7), Some((7, 1)));
        assert!((0..3).all(|_| queue.take(true).is_some()));
        assert_eq!(queue.tick(7), None);
        // All seven end, and then a thread is requested again.
        assert!((0..7).all(|_| queue.take(false).is_none() && !queue.leave()));
        assert_eq!(queue.add(()), Request::Thread);
    }

    #[test]
    fn a_thread_that_is_done_takes_the_next_turn() {
        let queue = TurnQueue::new(1);
        assert_eq!(queue.add(0), Request::Thread);
        assert_eq!((queue.take(true), queue.add(1)), (Some(0), Request::Watch));
        assert_eq!((queue.take(false), queue.tick(0)), (Some(1), None));
        assert_eq!((queue.take(false), queue.leave()), (None, false));
        assert_eq!(queue.add(2), Request::Thread);
    }

    #[test]
    fn a_thread_whose_share_ends_is_replaced_while_turns_wait() {
        let queue = TurnQueue::new(1);
        assert_eq!((queue.add(0), queue.add(1)), (Request::Thread, Request::Watch));
        assert_eq!((queue.take(true), queue.leave()), (Some(0), true));
        assert_eq!(queue.add(2), Request::Nothing, "its successor counts");
        assert_eq!(queue.tick(2), Some((3, 0)), "and will take the late turn");
        assert_eq!((queue.take(true), queue.take(false)), (Some(1), Some(2)));
        assert!(!queue.leave());
        assert_eq!(queue.lock().threads, 0);
    }

    /// A queue and everything that calls it. Each call is one step, because it holds the lock.
    #[derive(Clone, PartialEq, Eq, Hash)]
    struct World {
        parallelism: usize,
        state: State<()>,
        /// Number of turns that are added later.
        left: usize,
        /// Numbers of threads that will begin, that are in a turn, and that found none.
        starting: usize,
        busy: usize,
        idle: usize,
        /// The argument of the next tick, if a task calls it.
        watch: Option<u64>,
    }

    impl World {
        fn call<R>(&mut self, call: impl FnOnce(&TurnQueue<()>) -> R) -> R {
            let state = Mutex::new(self.state.clone());
            let queue = TurnQueue { parallelism: self.parallelism, state };
            let result = call(&queue);
            self.state = queue.state.into_inner().unwrap();
            result
        }

        fn add(&mut self) {
            self.left -= 1;
            match self.call(|queue| queue.add(())) {
                Request::Nothing => {}
                Request::Thread => self.starting += 1,
                Request::Watch => {
                    assert!(self.watch.replace(0).is_none(), "one task watches");
                }
            }
        }

        fn begin(&mut self) {
            self.starting -= 1;
            self.take(true);
        }

        fn go_on(&mut self) {
            self.busy -= 1;
            self.take(false);
        }

        fn take(&mut self, is_first: bool) {
            match self.call(|queue| queue.take(is_first)) {
                Some(()) => self.busy += 1,
                None => self.idle += 1,
            }
        }

        /// A thread whose share is used up ends after its turn.
        fn leave_busy(&mut self) {
            self.busy -= 1;
            self.leave();
        }

        fn leave_idle(&mut self) {
            self.idle -= 1;
            self.leave();
        }

        fn leave(&mut self) {
            let continues = self.call(TurnQueue::leave);
            self.starting += usize::from(continues);
        }

        fn tick(&mut self) {
            let before = self.watch.take().unwrap();
            if let Some((now, threads)) = self.call(|queue| queue.tick(before)) {
                self.watch = Some(now);
                self.starting += threads;
            }
        }

        /// Lets all calls but the turns return: no turn may wait for one that is blocked.
        fn settle(mut self) {
            for _ in 0..100 {
                if self.starting > 0 {
                    self.begin();
                } else if self.idle > 0 {
                    self.leave_idle();
                } else if self.watch.is_some() {
                    self.tick();
                } else {
                    break;
                }
            }
            assert!(self.state.waiting.is_empty(), "{:?}", self.state);
            assert_eq!(self.state.threads, self.busy);
        }
    }

    /// In every order of calls, each turn gets a thread even if no other turn ever ends.
    #[test]
    fn no_turn_waits_for_a_blocked_one() {
        for parallelism in [1, 2] {
            let state = TurnQueue::new(parallelism).state.into_inner().unwrap();
            let (left, starting, busy, idle, watch) = (6, 0, 0, 0, None);
            let first = World { parallelism, state, left, starting, busy, idle, watch };
            let mut seen = HashSet::from([first.clone()]);
            let mut open = vec![first];
            while let Some(world) = open.pop() {
                let mut step = |is_possible: bool, step: fn(&mut World)| {
                    let mut next = world.clone();
                    if is_possible {
                        step(&mut next);
                    }
                    if seen.insert(next.clone()) {
                        open.push(next);
                    }
                };
                step(world.left > 0, World::add);
                step(world.starting > 0, World::begin);
                step(world.busy > 0, World::go_on);
                step(world.busy > 0, World::leave_busy);
                step(world.idle > 0, World::leave_idle);
                step(world.watch.is_some(), World::tick);
                world.settle();
            }
            assert!(seen.len() > 100, "{}", seen.len());
        }
    }

    #[test]
    fn each_turn_is_taken_once_by_racing_threads() {
        const TURNS: usize = 3000;
        let queue = TurnQueue::new(2);
        let taken = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for turn in 0..TURNS {
                if queue.add(turn) == Request::Thread {
                    scope.spawn(|| {
                        let mut continues = true;
                        while continues {
                            // Each thread ends after at most two turns.
                            let turns = [true, false].into_iter();
                            let turns = turns.map_while(|is_first| queue.take(is_first));
                            turns.for_each(|turn| taken.lock().unwrap().push(turn));
                            continues = queue.leave();
                        }
                    });
                }
            }
        });
        let mut taken = taken.into_inner().unwrap();
        taken.sort_unstable();
        assert_eq!(taken, (0..TURNS).collect::<Vec<_>>());
        assert_eq!(queue.lock().threads, 0);
    }
}
