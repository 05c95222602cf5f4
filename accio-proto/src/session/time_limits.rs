//! The time a session has, and how it uses it.

use std::time::{Duration, Instant};

use super::Abort;
use crate::limits;

/// What one connection may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionLimits {
    /// How long the peer may be silent.
    pub idle_timeout: Duration,
    /// How large the file may be, in bytes.
    pub max_size: Option<u64>,
    /// How long the transfer may take, from accept to the last byte.
    pub max_duration: Option<Duration>,
    /// How many bytes a second must come, over [`limits::RATE_WINDOW`].
    pub min_rate: Option<u64>,
}

impl Default for SessionLimits {
    /// [`limits::IDLE_TIMEOUT`] and nothing else.
    fn default() -> Self {
        SessionLimits {
            idle_timeout: limits::IDLE_TIMEOUT,
            max_size: None,
            max_duration: None,
            min_rate: None,
        }
    }
}

impl SessionLimits {
    /// When a connection that is accepted now, and says nothing, has been here for too long.
    #[cfg(feature = "server")]
    pub(crate) fn first_deadline(&self, now: Instant) -> Instant {
        TransferClock::new(now).deadline(self)
    }
}

/// Keeps the time of one session.
#[derive(Debug)]
pub(super) struct TransferClock {
    /// When the connection was accepted.
    since: Instant,
    /// When the last byte came, or the connection itself.
    heard: Instant,
    /// Since when the rate is being measured; moves on by the time that we were busy.
    window: Instant,
    /// Bytes since then.
    received: u64,
    /// Whether we ever waited for the peer since then. If not, we are the slow ones.
    waited: bool,
}

impl TransferClock {
    pub(super) fn new(now: Instant) -> Self {
        TransferClock { since: now, heard: now, window: now, received: 0, waited: false }
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Bytes came.
    pub(super) fn receive(&mut self, count: usize, now: Instant) {
        self.heard = now;
        self.received += count as u64;
    }

    /// There was nothing to receive.
    pub(super) fn wait(&mut self) {
        self.waited = true;
    }

    /// We were busy with bytes that came, from `started` to `now`: none of that was the peer's.
    pub(super) fn resume(&mut self, started: Instant, now: Instant) {
        self.heard = now;
        self.window += now.saturating_duration_since(started);
    }

    /// The next time to [`check`](TransferClock::check). Only ever moves later.
    pub(super) fn deadline(&self, limits: &SessionLimits) -> Instant {
        let mut deadline = self.heard + limits.idle_timeout;
        if let Some(max_duration) = limits.max_duration {
            deadline = deadline.min(self.since + max_duration);
        }
        if limits.min_rate.is_some() {
            deadline = deadline.min(self.window + limits::RATE_WINDOW);
        }
        deadline
    }

    /// Finds out which limit is exceeded, if any; starts a new window when one is over.
    pub(super) fn check(&mut self, limits: &SessionLimits, now: Instant) -> Result<(), Abort> {
        if self.heard + limits.idle_timeout <= now {
            return Err(Abort::Idle(limits.idle_timeout));
        }
        if let Some(max) = limits.max_duration
            && self.since + max <= now
        {
            return Err(Abort::TooLong(max));
        }
        if let Some(min_rate) = limits.min_rate
            && self.window + limits::RATE_WINDOW <= now
        {
            let got = self.received;
            let least = min_rate.saturating_mul(limits::RATE_WINDOW.as_secs());
            // Bytes that were found only now had been waiting for us.
            if self.waited && self.heard < now && got < least {
                return Err(Abort::TooSlow { got, min_rate });
            }
            (self.window, self.received, self.waited) = (now, 0, false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut SessionLimits)) -> SessionLimits {
        let mut limits = SessionLimits::default();
        change(&mut limits);
        limits
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_counts_from_the_last_byte_or_from_the_end_of_our_own_work() {
        let (start, limits) = (Instant::now(), SessionLimits::default());
        let mut pace = TransferClock::new(start);
        assert_eq!(pace.deadline(&limits), start + 10 * SECOND);
        pace.receive(1, start + 9 * SECOND);
        assert_eq!(pace.deadline(&limits), start + 19 * SECOND);
        pace.resume(start + 9 * SECOND, start + 30 * SECOND);
        assert_eq!(pace.deadline(&limits), start + 40 * SECOND);
        assert!(pace.check(&limits, start + 39 * SECOND).is_ok());
        assert!(matches!(pace.check(&limits, start + 40 * SECOND), Err(Abort::Idle(_))));
    }

    #[test]
    fn a_transfer_may_take_so_long_and_no_longer() {
        let start = Instant::now();
        let limits = limits(|limits| limits.max_duration = Some(15 * SECOND));
        let mut pace = TransferClock::new(start);
        pace.receive(1, start + 9 * SECOND);
        assert_eq!(pace.deadline(&limits), start + 15 * SECOND);
        assert!(pace.check(&limits, start + 14 * SECOND).is_ok());
        assert!(matches!(pace.check(&limits, start + 15 * SECOND), Err(Abort::TooLong(_))));
    }

    #[test]
    fn a_byte_every_nine_seconds_is_too_slow() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        let mut pace = TransferClock::new(start);
        pace.wait();
        pace.receive(1, start + 9 * SECOND);
        assert_eq!(pace.deadline(&limits), start + 10 * SECOND);
        let slow = pace.check(&limits, start + 10 * SECOND);
        assert!(matches!(slow, Err(Abort::TooSlow { got: 1, min_rate: 100 })));
    }

    #[test]
    fn each_window_is_measured_by_itself() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        let mut pace = TransferClock::new(start);
        pace.wait();
        pace.receive(1000, start + 9 * SECOND);
        assert!(pace.check(&limits, start + 10 * SECOND).is_ok());
        pace.wait();
        pace.receive(999, start + 19 * SECOND);
        assert!(pace.check(&limits, start + 20 * SECOND).is_err());
    }

    #[test]
    fn our_own_slowness_is_not_the_peers() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        // It never waited: the bytes were always there.
        let mut pace = TransferClock::new(start);
        pace.receive(1, start + 9 * SECOND);
        assert!(pace.check(&limits, start + 10 * SECOND).is_ok());
        // It waited once, but then the sink was busy.
        let mut pace = TransferClock::new(start);
        pace.wait();
        pace.receive(1, start + SECOND);
        pace.resume(start + SECOND, start + 9 * SECOND);
        assert!(pace.check(&limits, start + 10 * SECOND).is_ok());
        assert_eq!(pace.deadline(&limits), start + 18 * SECOND);
    }
}
