//! The deadline queue: when to look at which slot again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::sys::event_queue::Alarm;

/// Deadlines by slot, and the alarm that goes off at the earliest.
///
/// Deadlines only ever move later, so an entry may be early but never late; whoever takes a due
/// entry finds out whether it still holds and queues the new one otherwise. The queue thus holds
/// one entry per slot, and bytes that come cost it nothing.
#[derive(Debug)]
pub(super) struct Deadlines {
    queue: Mutex<BinaryHeap<Reverse<(Instant, u32)>>>,
    alarm: Alarm,
}

impl Deadlines {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Deadlines { queue: Mutex::default(), alarm: Alarm::new()? })
    }

    /// Queues a deadline.
    pub(super) fn push(&self, deadline: Instant, index: u32) {
        let mut queue = self.lock();
        let is_first = queue.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        queue.push(Reverse((deadline, index)));
        if is_first {
            self.set_alarm(&queue, Instant::now());
        }
    }

    /// Takes one entry that is due and sets the alarm for the next.
    pub(super) fn pop_due(&self, now: Instant) -> Option<u32> {
        let mut queue = self.lock();
        let due = match queue.peek() {
            Some(Reverse((deadline, index))) if *deadline <= now => {
                let index = *index;
                queue.pop();
                Some(index)
            }
            _ => None,
        };
        self.set_alarm(&queue, now);
        due
    }

    fn set_alarm(&self, queue: &BinaryHeap<Reverse<(Instant, u32)>>, now: Instant) {
        let delay = queue.peek().map(|Reverse((first, _))| first.saturating_duration_since(now));
        if let Err(error) = self.alarm.set(delay) {
            // Only possible with arguments that it never has.
            log::error!("cannot set the alarm: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BinaryHeap<Reverse<(Instant, u32)>>> {
        // The heap is whole between calls even if a worker panicked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Deadlines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn entries_come_out_in_order_and_not_early() {
        let deadlines = Deadlines::new().unwrap();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (seconds, index) in [(30, 3), (10, 1), (20, 2)] {
            deadlines.push(at(seconds), index);
        }
        assert_eq!(deadlines.pop_due(at(9)), None);
        assert_eq!(deadlines.pop_due(at(25)), Some(1));
        assert_eq!(deadlines.pop_due(at(25)), Some(2));
        assert_eq!(deadlines.pop_due(at(25)), None);
        assert_eq!(deadlines.pop_due(at(30)), Some(3));
        assert_eq!(deadlines.pop_due(at(99)), None);
    }
}
