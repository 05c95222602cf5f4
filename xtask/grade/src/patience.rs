//! How long the kit waits for a server before it is blamed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::own_time::OwnTime;
use super::received;
use accio_harness::process_table;
use rustix::process::Pid;

/// How long a wrong file must remain unchanged before the server is blamed for it.
const UNCHANGED: Duration = Duration::from_secs(1);

/// A wait for a server that may serve another connection first.
#[derive(Debug)]
pub(crate) struct Patience {
    group: Pid,
    limit: Duration,
    time: OwnTime,
    /// Number of bytes that the server took over all connections, and that number at the beginning.
    taken: Arc<AtomicU64>,
    before: u64,
    /// Number of times that the time began again.
    turns: u32,
}

impl Patience {
    /// Starts to wait. The time begins again while the server takes content over another connection:
    /// only the checks of concurrency ask for more than one at a time.
    pub(crate) fn new(group: Pid, taken: &Arc<AtomicU64>, limit: Duration) -> Patience {
        let (time, taken) = (OwnTime::of(&[group]), Arc::clone(taken));
        let before = taken.load(Ordering::Relaxed);
        Patience { group, limit, time, taken, before, turns: 0 }
    }

    /// Returns whether the server did nothing for the whole time.
    pub(crate) fn has_ended(&mut self) -> bool {
        /// Maximum number of times that the time begins again: more than nine other transfers.
        const TURNS: u32 = 20;
        if !self.time.exceeds(self.limit) {
            return false;
        }
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.before || self.turns == TURNS {
            return true;
        }
        (self.before, self.time) = (taken, OwnTime::of(&[self.group]));
        self.turns += 1;
        false
    }
}

/// A file that is observed until it no longer changes.
#[derive(Debug, Default)]
pub(crate) struct WatchedFile {
    /// Its length, and since when it is the same.
    seen: std::cell::Cell<Option<(u64, Instant)>>,
}

impl WatchedFile {
    /// Returns whether the file is unlike `content`, not only incomplete, and the idle server has
    /// not changed it for some time.
    pub(crate) fn stays_wrong(&self, group: Pid, path: &Path, content: &[u8]) -> bool {
        let length = received::length(path).unwrap_or(0);
        match self.seen.get() {
            Some((before, since)) if before == length => {
                if since.elapsed() < UNCHANGED {
                    return false;
                }
            }
            _ => {
                self.seen.set(Some((length, Instant::now())));
                return false;
            }
        }
        // Look again after the next interval.
        self.seen.set(Some((length, Instant::now())));
        received::read(path, content.len()).is_ok_and(|now| !content.starts_with(&now))
            && process_table::settles(group, Duration::from_millis(100))
    }
}
