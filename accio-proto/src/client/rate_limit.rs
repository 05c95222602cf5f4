//! Rate limit: a token bucket.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Limits the total number of bytes since the start to the rate, even if it is asked late.
#[derive(Debug)]
pub(super) struct RateLimiter {
    /// Bytes per second.
    rate: f64,
    /// Bytes that may be sent now.
    saved: f64,
    filled: Instant,
}

impl RateLimiter {
    /// Capacity of the bucket, in seconds of the rate. Longer pauses of the client are not
    /// compensated.
    const DEPTH: f64 = 0.1;

    pub(super) fn new(rate: NonZeroU64, now: Instant) -> Self {
        RateLimiter { rate: rate.get() as f64, saved: 0.0, filled: now }
    }

    /// Returns how many bytes may be sent now, or how long to wait. If the rate allows it, waits
    /// until the bucket is half full, so that bytes are not sent one by one.
    pub(super) fn ask(&mut self, now: Instant) -> Result<usize, Duration> {
        let depth = (self.rate * Self::DEPTH).max(1.0);
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate;
        self.saved = (self.saved + gained).min(depth);
        self.filled = now;
        let least = (depth / 2.0).max(1.0);
        if self.saved >= least {
            // A cast from a float saturates.
            return Ok(self.saved as usize);
        }
        Err(Duration::from_secs_f64((least - self.saved) / self.rate) + Duration::from_micros(1))
    }

    /// Removes `count` bytes from the bucket.
    pub(super) fn spend(&mut self, count: usize) {
        self.saved -= count as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_at_most_and_nearly_the_rate() {
        for rate in [1, 7, 1000, 1 << 20, 10_000_000_000] {
            let start = Instant::now();
            let mut now = start;
            let mut limiter = RateLimiter::new(NonZeroU64::new(rate).unwrap(), start);
            let mut sent = 0u64;
            while now - start < Duration::from_secs(20) {
                match limiter.ask(now) {
                    Ok(count) => {
                        let count = count.min(1 << 30);
                        limiter.spend(count);
                        sent += count as u64;
                        let allowed = (now - start).as_secs_f64() * rate as f64 + 1e-3;
                        assert!(sent as f64 <= allowed, "{sent} of {allowed} at {rate}");
                    }
                    Err(pause) => now += pause,
                }
            }
            assert!(sent >= rate * 19, "{sent} at {rate}");
        }
    }

    #[test]
    fn a_pause_saves_at_most_a_tenth_of_a_second() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(NonZeroU64::new(1000).unwrap(), start);
        assert_eq!(limiter.ask(start + Duration::from_secs(3600)), Ok(100));
    }
}
