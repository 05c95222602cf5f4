//! Waits for a condition.

use std::thread;
use std::time::{Duration, Instant};

/// Calls `holds` every few milliseconds until it returns true or `limit` has passed; returns its
/// last result.
pub fn wait_until(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(3));
    }
}
