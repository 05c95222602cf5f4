//! Warnings about connections that exceed the operator's limits, and about rejected files.

use std::collections::HashMap;
use std::fmt::Arguments;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::program_log as log;
use crate::session::Abort;

/// Minimum interval between warnings about one limit. Clients decide how often they exceed it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Logs at most one warning per limit and second, counts the other cases, and logs them as
/// information.
#[derive(Debug, Default)]
pub(super) struct LimitLog {
    limits: Mutex<HashMap<&'static str, State>>,
}

#[derive(Debug)]
struct State {
    logged: Instant,
    /// Number of cases since the last warning.
    unlogged: u64,
}

impl LimitLog {
    /// Logs that a connection exceeded `limit`.
    pub(super) fn log(&self, limit: &'static str, now: Instant, line: Arguments<'_>) {
        match self.count(limit, now) {
            None => log::info!("{line}"),
            Some(0) => log::warn!("{line}"),
            Some(unlogged) => log::warn!("{line}, and {unlogged} more for this reason before"),
        }
    }

    /// Returns `None` if there was a warning about the limit within the interval, otherwise the
    /// number of cases since then.
    fn count(&self, limit: &'static str, now: Instant) -> Option<u64> {
        // Every change under this lock is complete before anything could panic.
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(state) = limits.get_mut(limit) else {
            limits.insert(limit, State { logged: now, unlogged: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(state.logged) < INTERVAL {
            state.unlogged += 1;
            return None;
        }
        state.logged = now;
        Some(std::mem::take(&mut state.unlogged))
    }
}

/// Returns whether the transfer was ended by an operator's limit or reviewer, not by the protocol.
pub(super) fn is_operators_rule(why: &Abort) -> bool {
    matches!(
        why,
        Abort::TooLarge(_) | Abort::TooLong(_) | Abort::TooSlow { .. } | Abort::Rejected(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_once_a_second_and_counts_the_rest() {
        let log = LimitLog::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(log.count("large", at(0)), Some(0));
        for millis in [1, 500, 999] {
            assert_eq!(log.count("large", at(millis)), None);
        }
        assert_eq!(log.count("denied", at(999)), Some(0), "each limit is counted separately");
        assert_eq!(log.count("large", at(1000)), Some(3));
        assert_eq!(log.count("large", at(2500)), Some(0));
    }
}
