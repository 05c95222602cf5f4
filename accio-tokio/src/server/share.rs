//! The share of the runtime's threads for blocking work that one call takes.

use std::time::{Duration, Instant};

/// Maximum number of jobs in a row (256): another thread must be woken after them.
const MAX_JOBS: u32 = 256;

/// Time after which no other job begins (10 ms): other blocking work of the runtime waits as long.
const MAX_TIME: Duration = Duration::from_millis(10);

/// The rest of a call's share. A call that has used it up must be queued again, so that other
/// blocking work gets a thread.
#[derive(Debug)]
pub(super) struct Share {
    jobs: u32,
    end: Instant,
}

impl Share {
    pub(super) fn begin() -> Self {
        Share { jobs: MAX_JOBS, end: Instant::now() + MAX_TIME }
    }

    /// Returns whether the call may do another job, and counts it.
    pub(super) fn lasts(&mut self) -> bool {
        let lasts = self.jobs > 0 && !self.is_late();
        self.jobs -= u32::from(lasts);
        lasts
    }

    /// Returns whether the time is over. Check it within a long job.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_ends_by_number_and_by_time() {
        let later = Instant::now() + Duration::from_secs(3600);
        let mut share = Share { jobs: MAX_JOBS, end: later };
        assert!((0..MAX_JOBS).all(|_| share.lasts()));
        assert!(!share.lasts());
        let mut share = Share { jobs: MAX_JOBS, end: Instant::now() };
        assert!(share.is_late() && !share.lasts());
        let share = Share::begin();
        assert!(share.jobs == MAX_JOBS && share.end <= Instant::now() + MAX_TIME);
    }
}
