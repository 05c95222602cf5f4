//! The places for connections, as many as are served at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts the connections in service against the limit.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    taken: AtomicUsize,
    /// The front thread waits for a place, or for the last connection to end.
    wanted: AtomicBool,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Places { limit, taken: AtomicUsize::new(0), wanted: AtomicBool::new(false) }
    }

    /// Takes a place. Only the front thread does.
    pub(super) fn take(&self) -> bool {
        if self.taken() >= self.limit {
            return false;
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Gives a place back. Returns whether the front thread must be woken.
    pub(super) fn leave(&self) -> bool {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.wanted.load(Ordering::SeqCst) && self.wanted.swap(false, Ordering::SeqCst)
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Asks for a wake-up when a place becomes free. One that becomes free before the next look at
    /// the count is not announced.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Whether a place is free.
    pub(super) fn is_free(&self) -> bool {
        self.taken() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_becomes_free_is_announced_once_and_only_if_wanted() {
        let places = Places::new(2);
        assert!(places.take() && places.take() && !places.take() && !places.is_free());
        assert!(!places.leave());
        assert!(places.is_free() && places.take());
        places.want();
        assert!(places.leave());
        assert!(!places.leave());
        assert_eq!(places.taken(), 0);
    }
}
