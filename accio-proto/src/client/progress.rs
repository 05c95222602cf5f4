//! How far a file is: sent, acknowledged, and when either last moved.

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::sys::unacked::Unacked;
use crate::tuning::client::PROGRESS_INTERVAL;

/// How far a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes handed to this machine's kernel; it may hold megabytes of them.
    pub sent: u64,
    /// Bytes that the peer's kernel has acknowledged; `None` where this system does not tell.
    pub acknowledged: Option<u64>,
    /// Bytes to send, by the file's size at the start; `None` for a source without a size.
    pub total: Option<u64>,
}

/// Receives the progress of an upload.
pub(super) type ProgressObserver = dyn Fn(Progress) + Send + Sync;

pub(super) struct ProgressTracker<'c> {
    /// `None` where the kernel does not tell.
    unacked: Option<Unacked>,
    report: Option<&'c ProgressObserver>,
    reported: Instant,
    total: Option<u64>,
    /// Bytes of content handed to the kernel.
    sent: u64,
    /// Sequence numbers since the start of the content: `sent`, what TLS adds, and 1 for our FIN.
    queued: u64,
    /// What TLS adds, and the content that is not counted as sent yet.
    overhead: u64,
    /// The part of `queued` that the peer has acknowledged; never above it, never falling.
    acknowledged: u64,
    moved: Instant,
}

impl<'c> ProgressTracker<'c> {
    pub(super) fn new(stream: &TcpStream, report: Option<&'c ProgressObserver>) -> Self {
        let now = Instant::now();
        let unacked = Unacked::of(stream);
        if unacked.is_none() {
            log::info!("this system does not tell what the peer has acknowledged");
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

    /// The content begins, of this size if that is known.
    pub(super) fn start(&mut self, total: Option<u64>, now: Instant) {
        self.total = total;
        self.moved = now;
    }

    /// The content turned out to be of this size.
    pub(super) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// The kernel took `count` bytes.
    pub(super) fn add_written(&mut self, count: usize, now: Instant) {
        self.queued += count as u64;
        self.overhead += count as u64;
        self.moved = now;
    }

    /// So much of what it took was content.
    pub(super) fn add_content(&mut self, count: usize) {
        self.sent += count as u64;
        self.overhead = self.overhead.saturating_sub(count as u64);
    }

    /// The kernel took our FIN.
    pub(super) fn add_fin(&mut self, now: Instant) {
        self.queued += 1;
        self.moved = now;
    }

    /// It is not the peer's turn: the time without progress starts anew, unless the peer still owes
    /// an acknowledgement.
    pub(super) fn rest(&mut self, now: Instant) {
        if self.look(now).is_none_or(|outstanding| outstanding == 0) {
            self.moved = now;
        }
    }

    /// How long nothing has moved, as of the last [`ProgressTracker::look`].
    pub(super) fn stillness(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.moved)
    }

    /// When it will have been still for `limit`.
    pub(super) fn still_at(&self, limit: Duration) -> Instant {
        self.moved + limit
    }

    /// Asks the kernel what the peer has not acknowledged.
    pub(super) fn look(&mut self, now: Instant) -> Option<u64> {
        let outstanding = self.unacked.as_mut()?.outstanding()?;
        // The handshake's last bytes can be outstanding as well.
        let acknowledged = self.queued.saturating_sub(outstanding);
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            self.moved = now;
        }
        Some(outstanding)
    }

    /// Tells the caller how far it is, if it is time to.
    pub(super) fn tick(&mut self, now: Instant) {
        if now.saturating_duration_since(self.reported) >= PROGRESS_INTERVAL {
            self.tell(now);
        }
    }

    /// Tells the caller how far it is.
    pub(super) fn tell(&mut self, now: Instant) {
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

    /// The peer has it all, as its FIN says: tells the caller a last time.
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
