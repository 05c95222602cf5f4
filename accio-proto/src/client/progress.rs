//! Progress of an upload: bytes sent, bytes acknowledged, and the time of the last change.

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::program_log as log;
use crate::sys::unacked::Unacked;
use crate::tuning::client::PROGRESS_INTERVAL;

/// Progress of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Number of bytes passed to the kernel of this machine, which may buffer several megabytes.
    pub sent: u64,
    /// Number of bytes that the peer's kernel has acknowledged; `None` if this system does not
    /// report it.
    pub acknowledged: Option<u64>,
    /// Number of bytes to send, from the file's size at the start; `None` for a source without a
    /// size.
    pub total: Option<u64>,
}

/// Receives the progress of an upload.
pub(super) type ProgressObserver = dyn Fn(Progress) + Send + Sync;

pub(super) struct ProgressTracker<'c> {
    /// `None` if the kernel does not report acknowledged bytes.
    unacked: Option<Unacked>,
    report: Option<&'c ProgressObserver>,
    reported: Instant,
    total: Option<u64>,
    /// Bytes of content passed to the kernel.
    sent: u64,
    /// Sequence numbers used since the start of the content: `sent`, the overhead of TLS, and 1 for
    /// the FIN.
    queued: u64,
    /// The overhead of TLS, and content that does not count as sent yet.
    overhead: u64,
    /// The part of `queued` that the peer has acknowledged; it never decreases.
    acknowledged: u64,
    moved: Instant,
}

impl<'c> ProgressTracker<'c> {
    pub(super) fn new(stream: &TcpStream, report: Option<&'c ProgressObserver>) -> Self {
        let now = Instant::now();
        let unacked = Unacked::of(stream);
        if unacked.is_none() {
            log::info!("this system does not report acknowledged bytes");
        }
        ProgressTracker {
            unacked,
            report,
            reported: now,
            total: None,
            sent: 0,
            queued: 0,
            overhead: 0,
            acknowledged: 0,
            moved: now,
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Starts the measurement of the content, with its size if it is known.
    pub(super) fn start(&mut self, total: Option<u64>, now: Instant) {
        self.total = total;
        self.moved = now;
    }

    /// Sets the size of the content after it became known.
    pub(super) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// Counts bytes that the kernel has accepted.
    pub(super) fn add_written(&mut self, count: usize, now: Instant) {
        self.queued += count as u64;
        self.overhead += count as u64;
        self.moved = now;
    }

    /// Counts the part of them that is content.
    pub(super) fn add_content(&mut self, count: usize) {
        self.sent += count as u64;
        self.overhead = self.overhead.saturating_sub(count as u64);
    }

    /// Counts the FIN.
    pub(super) fn add_fin(&mut self, now: Instant) {
        self.queued += 1;
        self.moved = now;
    }

    /// Restarts the time without progress while the peer has nothing to do, unless it still owes an
    /// acknowledgement.
    pub(super) fn rest(&mut self, now: Instant) {
        if self.look(now).is_none_or(|outstanding| outstanding == 0) {
            self.moved = now;
        }
    }

    /// Returns the time without progress, as of the last [`ProgressTracker::look`].
    pub(super) fn stillness(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.moved)
    }

    /// Returns the time at which there will have been no progress for `limit`.
    pub(super) fn still_at(&self, limit: Duration) -> Instant {
        self.moved + limit
    }

    /// Asks the kernel how many bytes the peer has not acknowledged.
    pub(super) fn look(&mut self, now: Instant) -> Option<u64> {
        let outstanding = self.unacked.as_mut()?.outstanding()?;
        // The last bytes of the handshake may be unacknowledged as well.
        let acknowledged = self.queued.saturating_sub(outstanding);
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.moved = now;
        }
        Some(outstanding)
    }

    /// Reports the progress if the interval has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.reported) >= PROGRESS_INTERVAL {
            self.emit(now);
        }
    }

    /// Reports the progress.
    pub(super) fn emit(&mut self, now: Instant) {
        let Some(report) = self.report else { return };
        self.reported = now;
        self.look(now);
        let acknowledged = self.acknowledged.saturating_sub(self.overhead).min(self.sent);
        report(Progress {
            sent: self.sent,
            acknowledged: self.unacked.is_some().then_some(acknowledged),
            total: self.total,
        });
    }

    /// Reports the progress a last time: the peer's FIN acknowledges every byte.
    pub(super) fn complete(&mut self) {
        let Some(report) = self.report else { return };
        report(Progress { sent: self.sent, acknowledged: Some(self.sent), total: self.total });
    }
}

impl fmt::Debug for ProgressTracker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressTracker")
            .field("sent", &self.sent)
            .field("acknowledged", &self.acknowledged)
            .finish_non_exhaustive()
    }
}
