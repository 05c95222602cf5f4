//! The most recent finished connections.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(feature = "tls-server")]
use accio_proto::FailedHandshake;
use accio_proto::{Dialect, Digest, Outcome, os_error_text};
use jiff::Timestamp;

use super::explanation::{expectation, explain};
use super::text::clip;

/// Number of records that are kept.
pub(super) const KEPT: usize = 200;

/// A finished connection.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    /// `None` for a refused connection.
    pub(super) id: Option<u64>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) identity: Option<Arc<str>>,
    pub(super) dialect: Option<Dialect>,
    pub(super) bytes: u64,
    pub(super) digest: Option<Digest>,
    pub(super) duration: Duration,
    pub(super) failure: Option<Box<Failure>>,
    /// The program's note about the content, if any.
    pub(super) note: Option<Box<str>>,
}

/// The reason of a failure. Each text is short and has no unprintable characters.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) reason: &'static str,
    pub(super) error: String,
    pub(super) explanation: String,
    pub(super) expected: Option<String>,
    pub(super) received: Option<String>,
    /// The reason why not even the error marker was stored.
    pub(super) unmarked: Option<String>,
}

impl Record {
    pub(super) fn ended(outcome: &Outcome, note: Option<&str>) -> Record {
        let failure = outcome.result.as_ref().err().map(|why| {
            let (expected, received) = expectation(why).unzip();
            Box::new(Failure {
                reason: why.code(),
                error: clip(&why.to_string()),
                explanation: clip(&explain(why, outcome.connection.dialect)),
                expected,
                received,
                unmarked: outcome.unmarked.as_ref().map(|error| clip(&os_error_text(error))),
            })
        });
        Record {
            time: Timestamp::now(),
            id: Some(outcome.connection.id),
            peer: outcome.connection.peer,
            identity: outcome.connection.identity.clone(),
            dialect: outcome.connection.dialect,
            bytes: outcome.bytes,
            digest: outcome.digest,
            duration: outcome.duration,
            failure,
            note: note.map(|note| clip(note).into()),
        }
    }

    #[cfg(feature = "tls-server")]
    pub(super) fn refused(failed: &FailedHandshake) -> Record {
        let error = clip(&failed.failure.to_string());
        let failure = Failure {
            reason: failed.failure.code(),
            explanation: format!(
                "The connection was refused: {error}. It got no number and left no file."
            ),
            error,
            expected: None,
            received: None,
            unmarked: None,
        };
        Record {
            time: Timestamp::now(),
            id: None,
            peer: failed.peer,
            identity: None,
            dialect: None,
            bytes: 0,
            digest: None,
            duration: failed.duration,
            failure: Some(Box::new(failure)),
            note: None,
        }
    }
}

/// The last [`KEPT`] records. The lock is only held to push one record or to copy pointers.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Arc<Record>>>);

impl History {
    pub(super) fn push(&self, record: Record) {
        let record = Arc::new(record);
        let mut records = self.lock();
        let oldest = if records.len() == KEPT { records.pop_front() } else { None };
        records.push_back(record);
        drop(records);
        // Free the record outside the lock.
        drop(oldest);
    }

    /// Returns the records, latest first.
    pub(super) fn latest(&self) -> Vec<Arc<Record>> {
        self.lock().iter().rev().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Record>>> {
        // Every change is one call, so the state is consistent even if another thread panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_records() {
        let history = History::default();
        for id in 1..=3 * KEPT as u64 {
            history.push(Record {
                time: Timestamp::UNIX_EPOCH,
                id: Some(id),
                peer: None,
                identity: None,
                dialect: None,
                bytes: 0,
                digest: None,
                duration: Duration::ZERO,
                failure: None,
                note: None,
            });
        }
        let ids: Vec<_> = history.latest().iter().filter_map(|record| record.id).collect();
        assert_eq!(ids.len(), KEPT);
        assert!(ids.iter().copied().eq((2 * KEPT as u64 + 1..=3 * KEPT as u64).rev()));
    }
}
