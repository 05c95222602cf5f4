//! Measures how late this process itself is scheduled. On a busy machine this delay must not count
//! against the time limits of the program under test.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Interval at which the clock is read.
const BEAT: Duration = Duration::from_millis(10);
/// Shorter delays are ignored.
const NOISE: Duration = Duration::from_millis(5);
/// Maximum number of delays kept; a run has far fewer.
const KEPT: usize = 10_000;

/// The time and the length of each delay.
static SAMPLES: Mutex<VecDeque<(Instant, Duration)>> = Mutex::new(VecDeque::new());

/// Starts the measurement, which runs until the process ends.
pub fn start() {
    thread::spawn(|| {
        loop {
            let began = Instant::now();
            thread::sleep(BEAT);
            let late = began.elapsed().saturating_sub(BEAT);
            if late > NOISE {
                let mut samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
                samples.push_back((Instant::now(), late));
                if samples.len() > KEPT {
                    samples.pop_front();
                }
            }
        }
    });
}

/// Returns the longest delay since `then`.
pub fn worst_since(then: Instant) -> Duration {
    let samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
    let recent = samples.iter().rev().take_while(|(at, _)| *at >= then);
    recent.map(|(_, late)| *late).max().unwrap_or_default()
}

/// Returns the sum of the delays since `then`.
pub fn total_since(then: Instant) -> Duration {
    let samples = SAMPLES.lock().unwrap_or_else(PoisonError::into_inner);
    let recent = samples.iter().rev().take_while(|(at, _)| *at >= then);
    recent.map(|(_, late)| *late).sum()
}
