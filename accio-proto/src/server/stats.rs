//! Counters of a server, for monitoring.

use std::sync::atomic::{AtomicU64, Ordering};

use super::outcome::Outcome;

/// Counts since the start of a server, and its current number of connections.
///
/// With the feature `serde` it can be written in any format, with names such as `in-service`, and read
/// again; missing counts are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, rename_all = "kebab-case"))]
#[non_exhaustive]
pub struct Stats {
    /// Connections that were assigned a number.
    pub accepted: u64,
    /// Connections that are in service now.
    pub in_service: u64,
    /// Connections that ended with a complete file.
    pub completed: u64,
    /// Connections that ended with the error marker.
    pub failed: u64,
    /// Connections that were refused before they got a number.
    pub refused: u64,
    /// Failed attempts to accept a connection.
    pub accept_errors: u64,
    /// Bytes of content in complete files.
    pub bytes: u64,
}

/// The counters that the workers update.
#[derive(Debug, Default)]
pub(super) struct Counters {
    accepted: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    accept_errors: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(super) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, outcome: &Outcome) {
        match outcome.result {
            Ok(()) => {
                self.bytes.fetch_add(outcome.bytes, Ordering::Relaxed);
                self.completed.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        // Read the ended connections before the accepted ones: since each connection is accepted
        // first, the difference is never negative.
        let completed = self.completed.load(Ordering::Acquire);
        let failed = self.failed.load(Ordering::Acquire);
        let accepted = self.accepted.load(Ordering::Acquire);
        Stats {
            accepted,
            in_service: accepted.saturating_sub(completed + failed),
            completed,
            failed,
            refused: self.refused.load(Ordering::Relaxed),
            accept_errors: self.accept_errors.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
