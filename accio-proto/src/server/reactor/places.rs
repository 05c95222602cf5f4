//! The limit on concurrent connections.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Counts the connections in service against the limit.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    taken: AtomicUsize,
    /// Whether the front thread waits for a free place or for the last connection to end.
    wanted: AtomicBool,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Places { limit, taken: AtomicUsize::new(0), wanted: AtomicBool::new(false) }
    }

    /// Takes a place, if one is free. The caller holds the lock of the listening sockets.
    pub(super) fn take(&self) -> bool {
        if self.taken() >= self.limit {
            return false;
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Takes a place even if none is free, for a descriptor that outlives its connection.
    pub(super) fn keep(&self) {
        self.taken.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns a place. Returns true if the front thread must be woken.
    pub(super) fn leave(&self) -> bool {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.wanted.load(Ordering::SeqCst) && self.wanted.swap(false, Ordering::SeqCst)
    }

    /// Returns a place that was not used. The caller has held the lock of the listening sockets since
    /// it took the place, so no thread has requested a wake-up because of it; a wake-up requested
    /// before is for the next connection that leaves.
    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }

    /// Returns the number of taken places.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Requests a wake-up when a place becomes free. The caller must check the count again
    /// afterwards: a place freed before this call is not announced.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Returns whether a place is free.
    pub(super) fn is_free(&self) -> bool {
        self.taken() < self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announces_a_free_place_once_and_only_on_request() {
        let places = Places::new(2);
        assert!(places.take() && places.take() && !places.take() && !places.is_free());
        assert!(!places.leave());
        assert!(places.is_free() && places.take());
        places.want();
        assert!(places.leave());
        assert!(!places.leave());
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_place_that_was_not_used_does_not_answer_a_request() {
        let places = Places::new(2);
        assert!(places.take());
        places.want();
        assert!(places.take());
        places.give_back();
        assert!(places.leave(), "the request is for this one");
    }
}
