//! Warnings about connections that the operator's own limits end or refuse.

use std::collections::HashMap;
use std::fmt::Arguments;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::session::Abort;

/// How often a limit is logged as a warning at the most; clients choose how often they exceed it.
const INTERVAL: Duration = Duration::from_secs(1);

/// Logs a warning per limit and second, counts the rest, and logs each of those as information.
#[derive(Debug, Default)]
pub(super) struct LimitLog {
    limits: Mutex<HashMap<&'static str, State>>,
}

#[derive(Debug)]
struct State {
    logged: Instant,
    /// Since then.
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

    /// `None` if the limit was logged a moment ago; else how often it was exceeded since then.
    fn count(&self, limit: &'static str, now: Instant) -> Option<u64> {
        // Every change is complete before anything could panic.
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

/// Whether an operator's own limit ended the transfer, and not the protocol's.
pub(super) fn is_own_limit(why: &Abort) -> bool {
    matches!(why, Abort::TooLarge(_) | Abort::TooLong(_) | Abort::TooSlow { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_logged_once_a_second_and_the_rest_is_counted() {
        let log = LimitLog::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(log.count("large", at(0)), Some(0));
        for millis in [1, 500, 999] {
            assert_eq!(log.count("large", at(millis)), None);
        }
        assert_eq!(log.count("denied", at(999)), Some(0), "each limit by itself");
        assert_eq!(log.count("large", at(1000)), Some(3));
        assert_eq!(log.count("large", at(2500)), Some(0));
    }
}
