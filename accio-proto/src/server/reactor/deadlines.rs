//! The deadline queue: which slot to check next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Deadlines by slot.
///
/// A queue entry may be too early but never too late: deadlines move later, except at the start of a
/// TLS handshake, and no entry is later than its first deadline would be (`Shared::queue_deadline`).
/// The front thread checks a due entry against the connection and requeues it if the deadline has
/// moved. Each slot therefore needs only one entry, and received bytes do not touch the queue.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: Mutex<BinaryHeap<Reverse<(Instant, u32)>>>,
}

impl Deadlines {
    /// Queues a deadline. Returns true if it is now the earliest, so that the front thread must be
    /// woken.
    pub(super) fn push(&self, deadline: Instant, index: u32) -> bool {
        let mut queue = self.lock();
        let is_first = queue.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        queue.push(Reverse((deadline, index)));
        is_first
    }

    /// Removes and returns one entry that is due.
    pub(super) fn pop_due(&self, now: Instant) -> Option<u32> {
        let mut queue = self.lock();
        let Reverse((deadline, index)) = *queue.peek()?;
        (deadline <= now).then(|| {
            queue.pop();
            index
        })
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().peek().map(|Reverse((deadline, _))| *deadline)
    }

    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Reverse<(Instant, u32)>>> {
        // The heap is consistent between calls even if a thread panicked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn returns_due_entries_in_order_and_never_early() {
        let deadlines = Deadlines::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let firsts = [(30, 3), (10, 1), (20, 2)].map(|(at_, index)| deadlines.push(at(at_), index));
        assert_eq!(firsts, [true, true, false]);
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(25)), Some(1));
        assert_eq!(deadlines.pop_due(at(25)), Some(2));
        assert_eq!(deadlines.pop_due(at(25)), None);
        assert_eq!(deadlines.pop_due(at(30)), Some(3));
        assert_eq!((deadlines.pop_due(at(99)), deadlines.next()), (None, None));
    }
}
