//! Time limits of a session.

use std::time::{Duration, Instant};

use super::Abort;
use crate::limits;

/// Limits of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct SessionLimits {
    /// Maximum time without a byte from the peer.
    #[cfg_attr(feature = "serde", serde(with = "crate::text::seconds"))]
    pub idle_timeout: Duration,
    /// Maximum file size in bytes.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub max_size: Option<u64>,
    /// Maximum duration from the accept to the last byte.
    #[cfg_attr(
        feature = "serde",
        serde(with = "crate::text::seconds::option", skip_serializing_if = "Option::is_none")
    )]
    pub max_duration: Option<Duration>,
    /// Minimum rate in bytes per second, measured over [`limits::RATE_WINDOW`].
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub min_rate: Option<u64>,
}

impl Default for SessionLimits {
    /// Returns the limits with [`limits::IDLE_TIMEOUT`] alone.
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
    /// Returns the deadline of a connection that is accepted now and sends nothing.
    #[cfg(feature = "server")]
    pub(crate) fn first_deadline(&self, now: Instant) -> Instant {
        TransferClock::new(now).deadline(self)
    }
}

/// Measures the time of one session.
#[derive(Debug)]
pub(super) struct TransferClock {
    /// Time of the accept.
    since: Instant,
    /// Time of the last byte, or of the accept.
    heard: Instant,
    /// Start of the rate window, moved forward by the time that the server was busy.
    window: Instant,
    /// Bytes received since then.
    received: u64,
    /// When the server first found nothing to receive since then. If never, the server is the slow
    /// side.
    waited: Option<Instant>,
    /// Bytes received since the server last found nothing, which may have waited for it.
    unseen: u64,
    /// Whether the server has found nothing since the last bytes.
    is_current: bool,
}

impl TransferClock {
    pub(super) fn new(now: Instant) -> Self {
        TransferClock {
            since: now,
            heard: now,
            window: now,
            received: 0,
            waited: None,
            unseen: 0,
            is_current: true,
        }
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard
    }

    /// Counts received bytes.
    pub(super) fn receive(&mut self, count: usize, now: Instant) {
        self.heard = now;
        self.received += count as u64;
        if std::mem::take(&mut self.is_current) {
            self.unseen = 0;
        }
        self.unseen += count as u64;
    }

    /// Records that there was nothing to receive.
    pub(super) fn wait(&mut self, now: Instant) {
        self.waited.get_or_insert(now);
        self.is_current = true;
    }

    /// Excludes the time in which the server was busy with received bytes, from `started` to `now`.
    pub(super) fn resume(&mut self, started: Instant, now: Instant) {
        self.heard = now;
        self.window += now.saturating_duration_since(started);
    }

    /// Returns the next time to call [`check`](TransferClock::check). It never moves earlier.
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

    /// Returns an error if a limit is exceeded, and starts a new rate window when one has ended.
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
            match self.waited {
                Some(waited) if got < least => {
                    // The peer may have waited for the server: if it has not looked before, or has
                    // received so much only now that the peer had no room to send more. A few bytes
                    // are no excuse, because a peer can send them on purpose.
                    let is_late = waited >= now || self.unseen >= limits::FIRST_READ as u64;
                    if self.heard < now || !is_late {
                        return Err(Abort::TooSlow { got, min_rate });
                    }
                }
                _ => self.received = 0,
            }
            // A server that has received all bytes is not behind, although nothing lets it look again.
            (self.window, self.waited) = (now, self.is_current.then_some(now));
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
    fn idle_time_counts_from_the_last_byte_or_the_end_of_own_work() {
        let (start, limits) = (Instant::now(), SessionLimits::default());
        let mut clock = TransferClock::new(start);
        assert_eq!(clock.deadline(&limits), start + 10 * SECOND);
        clock.receive(1, start + 9 * SECOND);
        assert_eq!(clock.deadline(&limits), start + 19 * SECOND);
        clock.resume(start + 9 * SECOND, start + 30 * SECOND);
        assert_eq!(clock.deadline(&limits), start + 40 * SECOND);
        assert!(clock.check(&limits, start + 39 * SECOND).is_ok());
        assert!(matches!(clock.check(&limits, start + 40 * SECOND), Err(Abort::Idle(_))));
    }

    #[test]
    fn max_duration_limits_a_transfer() {
        let start = Instant::now();
        let limits = limits(|limits| limits.max_duration = Some(15 * SECOND));
        let mut clock = TransferClock::new(start);
        clock.receive(1, start + 9 * SECOND);
        assert_eq!(clock.deadline(&limits), start + 15 * SECOND);
        assert!(clock.check(&limits, start + 14 * SECOND).is_ok());
        assert!(matches!(clock.check(&limits, start + 15 * SECOND), Err(Abort::TooLong(_))));
    }

    #[test]
    fn min_rate_detects_a_byte_every_nine_seconds() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        let mut clock = TransferClock::new(start);
        clock.wait(start);
        clock.receive(1, start + 9 * SECOND);
        assert_eq!(clock.deadline(&limits), start + 10 * SECOND);
        let slow = clock.check(&limits, start + 10 * SECOND);
        assert!(matches!(slow, Err(Abort::TooSlow { got: 1, min_rate: 100 })));
    }

    #[test]
    fn measures_each_rate_window_separately() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        let mut clock = TransferClock::new(start);
        clock.wait(start);
        clock.receive(1000, start + 9 * SECOND);
        assert!(clock.check(&limits, start + 10 * SECOND).is_ok());
        clock.wait(start + 10 * SECOND);
        clock.receive(999, start + 19 * SECOND);
        assert!(clock.check(&limits, start + 20 * SECOND).is_err());
    }

    #[test]
    fn a_slow_server_does_not_count_against_the_peer() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        // The server never waited: there were always bytes to receive.
        let mut clock = TransferClock::new(start);
        clock.receive(1, start + 9 * SECOND);
        assert!(clock.check(&limits, start + 10 * SECOND).is_ok());
        // The server waited once, but then the sink was busy.
        let mut clock = TransferClock::new(start);
        clock.wait(start);
        clock.receive(1, start + SECOND);
        clock.resume(start + SECOND, start + 9 * SECOND);
        assert!(clock.check(&limits, start + 10 * SECOND).is_ok());
        assert_eq!(clock.deadline(&limits), start + 18 * SECOND);
    }

    #[test]
    fn a_peer_that_waited_for_the_server_gets_another_rate_window() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100_000));
        let mut clock = TransferClock::new(start);
        clock.wait(start + SECOND);
        // As much as the peer had room for.
        clock.receive(200_000, start + 10 * SECOND);
        clock.wait(start + 10 * SECOND);
        assert!(clock.check(&limits, start + 10 * SECOND).is_ok());
        assert_eq!(clock.deadline(&limits), start + 20 * SECOND);
        clock.wait(start + 11 * SECOND);
        clock.receive(1_000, start + 19 * SECOND);
        clock.wait(start + 19 * SECOND);
        let slow = clock.check(&limits, start + 20 * SECOND);
        assert!(matches!(slow, Err(Abort::TooSlow { got: 201_000, .. })), "{slow:?}");
    }

    #[test]
    fn a_few_bytes_at_the_end_of_a_rate_window_excuse_no_peer() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        // A burst of small segments, and a single byte right before the time limit is checked.
        for times in [&[9_998, 9_999, 10_000, 10_001][..], &[10_000]] {
            let mut clock = TransferClock::new(start);
            clock.wait(start + SECOND);
            let end = times.iter().find_map(|milliseconds| {
                let now = start + Duration::from_millis(*milliseconds);
                clock.receive(1, now);
                clock.wait(now);
                clock.check(&limits, now).err()
            });
            assert!(matches!(end, Some(Abort::TooSlow { .. })), "{times:?}: {end:?}");
        }
    }

    #[test]
    fn a_byte_at_the_end_of_each_rate_window_excuses_a_peer_once() {
        let start = Instant::now();
        let limits = limits(|limits| limits.min_rate = Some(100));
        let mut clock = TransferClock::new(start);
        let mut results = (1..=2).map(|window| {
            // The server looks only when the byte has arrived.
            let now = start + 10 * window * SECOND;
            clock.receive(1, now);
            clock.wait(now);
            clock.check(&limits, now)
        });
        assert!(results.next().unwrap().is_ok(), "it may have been there before");
        let second = results.next().unwrap();
        assert!(matches!(second, Err(Abort::TooSlow { .. })), "{second:?}");
    }
}
