//! The plan of an emulated network.

use std::time::Duration;

use super::profile::Profile;

/// Maximum number of segments in a slice.
const MOST_SEGMENTS: u64 = 44;

/// Decides where the stream is sliced and where it stalls, by position only.
pub(super) struct Schedule {
    random: fastrand::Rng,
    profile: Profile,
    position: u64,
    /// The end of the current slice.
    cut: u64,
    stall: u64,
}

impl Schedule {
    pub(super) fn new(profile: Profile, seed: u64) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let stall = distance(&mut random, profile.stall_every);
        Schedule { random, profile, position: 0, cut: 0, stall }
    }

    /// Returns the number of bytes so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Returns how many of the next `available` bytes to send at once (0 for a reset) and the pause
    /// before them.
    pub(super) fn next(&mut self, available: usize) -> (usize, Duration) {
        let mut pause = Duration::ZERO;
        if self.profile.reset_at == Some(self.position) {
            return (0, pause);
        }
        if self.position >= self.cut {
            let segments = self.random.u64(1..=MOST_SEGMENTS);
            self.cut = self.position.saturating_add(self.profile.segment.saturating_mul(segments));
            pause = self.profile.jitter.mul_f64(self.random.f64().powi(8));
        }
        if self.position >= self.stall {
            // 200 ms, 400 ms and so on: retransmissions that may be lost again.
            let doublings = [0, 0, 0, 1, 1, 2, 3][self.random.usize(..7)];
            let stall = Duration::from_millis(200 << doublings);
            pause += stall.min(self.profile.longest_stall);
            self.stall =
                self.position.saturating_add(distance(&mut self.random, self.profile.stall_every));
        }
        let mut end = self.cut.min(self.stall.max(self.position + 1));
        if let Some(reset) = self.profile.reset_at.filter(|reset| *reset > self.position) {
            end = end.min(reset);
        }
        let length = usize::try_from(end - self.position).unwrap_or(available).min(available);
        self.position += length as u64;
        (length, pause)
    }
}

fn distance(random: &mut fastrand::Rng, mean: u64) -> u64 {
    if mean == u64::MAX { mean } else { random.u64(mean / 4..=mean * 7 / 4) }
}

#[cfg(test)]
mod tests {
    use super::super::PLAN;
    use super::*;

    fn slices(seed: u64, pieces: usize) -> Vec<(usize, Duration)> {
        let mut schedule = Schedule::new(Profile::POOR, seed);
        let mut taken = Vec::new();
        let mut rest = 4 << 20;
        while rest > 0 {
            let (length, pause) = schedule.next(pieces.min(rest));
            rest -= length;
            taken.push((length, pause));
        }
        taken
    }

    #[test]
    fn slices_and_stalls_depend_on_the_seed_whatever_the_reads() {
        assert_eq!(slices(1, 16 << 10), slices(1, 16 << 10));
        assert_ne!(slices(1, 16 << 10), slices(2, 16 << 10));
        let total = |pieces: &[(usize, Duration)]| pieces.iter().map(|(_, pause)| *pause).sum();
        let (whole, part): (Duration, Duration) =
            (total(&slices(7, usize::MAX)), total(&slices(7, 999)));
        assert_eq!(whole, part);
    }

    /// A good submission is graded in 15 s, and no check of it takes longer than ten transfers.
    #[test]
    fn ten_large_transfers_pause_for_less_than_ten_seconds() {
        let pauses = |number: u64| -> Duration {
            let mut schedule = Schedule::new(Profile::POOR, PLAN + 2 * number);
            let (mut left, mut total) = (10 << 20, Duration::ZERO);
            while left > 0 {
                let (length, pause) = schedule.next(left);
                (left, total) = (left - length, total + pause);
            }
            total
        };
        let all: Vec<Duration> = (0..10).map(pauses).collect();
        assert!(all.iter().sum::<Duration>() < Duration::from_secs(10), "{all:?}");
        assert!(all.iter().all(|one| *one > Duration::from_millis(400)), "{all:?}");
        assert!(all.iter().any(|one| *one > Duration::from_millis(1_600)), "{all:?}");
    }

    #[test]
    fn only_whole_segments_are_cut_off() {
        let mut position = 0;
        for (length, _) in slices(1, 64 << 10) {
            let cut = position + length as u64;
            // The end of what was read, the end of the stream, or a stall in between.
            let is_read = length == 64 << 10 || cut == 4 << 20;
            assert!(
                length >= 1_460 || is_read || cut.is_multiple_of(1_460),
                "{length} bytes at {position}"
            );
            position = cut;
        }
    }
}
