//! The queue of lines for the journal, and the decision whether the journal has failed.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// How long the journal may refuse a line before it counts as failed, and how long it must accept
/// lines before it counts as working again.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Maximum number of bytes of lines kept. Lines for which clients wait may exceed it: the number of
/// these clients is limited.
const CAPACITY: usize = 1 << 20;

/// Lines in order, each with the client that waits for it. Dropping the client releases it.
#[derive(Debug)]
pub(super) struct Queue<C> {
    waiting: VecDeque<Line<C>>,
    /// Lines that are being written at the moment.
    writing: VecDeque<Line<C>>,
    /// Report of lost lines that is being written in front of `writing`.
    reporting: Option<Report>,
    /// Total size of the waiting lines in bytes.
    bytes: usize,
    health: Health,
    /// Lost lines that have not been reported yet; their report follows the waiting lines.
    unreported: u64,
    /// Lines lost since the journal last worked.
    missing: u64,
    lost: u64,
}

#[derive(Debug)]
struct Line<C> {
    text: Vec<u8>,
    since: Instant,
    client: Option<C>,
}

#[derive(Debug)]
struct Report {
    lost: u64,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Works,
    /// Clients no longer wait for the journal.
    Failed {
        /// Since when it has accepted all lines, if it does.
        accepts_since: Option<Instant>,
    },
}

/// The result of a write.
#[derive(Debug)]
pub(super) struct Written {
    /// Number of bytes that are in the journal; fewer than were passed only after an error.
    pub(super) bytes: usize,
    /// Whether a power loss cannot remove these bytes, if that is asked for.
    pub(super) is_synced: bool,
    /// Why bytes are missing or not synced.
    pub(super) result: io::Result<()>,
}

/// A change of state that the operator must know about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Failed,
    Works { missing: u64 },
}

impl<C> Queue<C> {
    pub(super) fn new() -> Self {
        Queue {
            waiting: VecDeque::new(),
            writing: VecDeque::new(),
            reporting: None,
            bytes: 0,
            health: Health::Works,
            unreported: 0,
            missing: 0,
            lost: 0,
        }
    }

    /// Adds a line; returns its client if the client need not wait. A full queue loses the line if
    /// it is not required or the journal has failed.
    pub(super) fn push(
        &mut self,
        text: Vec<u8>,
        client: C,
        is_required: bool,
        now: Instant,
    ) -> Option<C> {
        let works = self.health == Health::Works;
        let is_full = self.unreported > 0 || self.bytes + text.len() > CAPACITY;
        if is_full && !(works && is_required) {
            // The following lines are lost too, until a report can say how many are missing.
            self.lose(1);
            return Some(client);
        }
        let (held, released) = if works { (Some(client), None) } else { (None, Some(client)) };
        self.bytes += text.len();
        self.waiting.push_back(Line { text, since: now, client: held });
        released
    }

    /// Takes whole lines for the next write: as many as fit into `limit` bytes, but at least one.
    /// Calls `report` for the line that reports lost ones, once it is next.
    pub(super) fn take(&mut self, limit: usize, report: impl FnOnce(u64) -> Vec<u8>) -> Vec<u8> {
        let mut text = Vec::new();
        if self.waiting.is_empty() && self.unreported > 0 {
            text = report(self.unreported);
            self.reporting = Some(Report { lost: self.unreported, len: text.len() });
        }
        while let Some(line) = self.waiting.front()
            && (text.is_empty() || text.len() + line.text.len() <= limit)
        {
            text.extend_from_slice(&line.text);
            self.bytes -= line.text.len();
            self.writing.extend(self.waiting.pop_front());
        }
        text
    }

    /// Records the result of writing the lines that were taken. Returns the clients whose lines are
    /// written, and the change of state, if any.
    pub(super) fn wrote(&mut self, wrote: &Written, now: Instant) -> (Vec<C>, Option<Change>) {
        let mut written = wrote.bytes;
        if let Some(Report { lost, len }) = self.reporting.take()
            && written >= len
        {
            written -= len;
            self.unreported -= lost;
        }
        let mut clients = Vec::new();
        while let Some(line) = self.writing.front()
            && written >= line.text.len()
        {
            written -= line.text.len();
            clients.extend(self.writing.pop_front().and_then(|line| line.client));
        }
        let unsynchronized = !wrote.is_synced && !clients.is_empty();
        while let Some(line) = self.writing.pop_back() {
            self.bytes += line.text.len();
            self.waiting.push_front(line);
        }
        let change = match (&wrote.result, self.health) {
            (Ok(()), Health::Failed { accepts_since: None }) => {
                self.health = Health::Failed { accepts_since: Some(now) };
                None
            }
            (Ok(()), _) => self.recover(now),
            (Err(_), Health::Failed { .. }) => {
                self.health = Health::Failed { accepts_since: None };
                None
            }
            // The lines are in the file but not synced, so a power loss may remove them: this
            // failure is the only warning.
            (Err(_), Health::Works) if unsynchronized => {
                clients.extend(self.fail());
                Some(Change::Failed)
            }
            (Err(_), Health::Works) => None,
        };
        (clients, change)
    }

    /// Marks the journal as failed if it has not accepted a line for [`PATIENCE`]. Returns the
    /// clients that waited.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<C> {
        let oldest = self.writing.front().or(self.waiting.front());
        let is_late = oldest.is_some_and(|line| now.duration_since(line.since) >= PATIENCE);
        if self.health == Health::Works && is_late { self.fail() } else { Vec::new() }
    }

    /// Marks the journal as working if it has accepted lines for [`PATIENCE`].
    pub(super) fn recover(&mut self, now: Instant) -> Option<Change> {
        let Health::Failed { accepts_since: Some(since) } = self.health else { return None };
        if now.duration_since(since) < PATIENCE || self.has_work() {
            return None;
        }
        self.health = Health::Works;
        Some(Change::Works { missing: std::mem::take(&mut self.missing) })
    }

    /// Returns when to call [`recover`](Queue::recover) if nothing else happens.
    pub(super) fn recovers_at(&self) -> Option<Instant> {
        match self.health {
            Health::Failed { accepts_since: Some(since) } => Some(since + PATIENCE),
            _ => None,
        }
    }

    /// Drops the lines that have not been written and returns their clients.
    pub(super) fn abandon(&mut self) -> Vec<C> {
        let count = self.waiting.len() + self.writing.len();
        let lines = self.writing.drain(..).chain(self.waiting.drain(..));
        let clients = lines.filter_map(|line| line.client).collect();
        self.bytes = 0;
        self.lose(count as u64);
        clients
    }

    /// Returns whether there is anything to write.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.unreported > 0
    }

    /// Returns whether everything has been written.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_work() && self.writing.is_empty() && self.reporting.is_none()
    }

    /// Returns whether any client waits.
    pub(super) fn has_clients(&self) -> bool {
        self.health == Health::Works && !(self.waiting.is_empty() && self.writing.is_empty())
    }

    #[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "metrics report it"))]
    pub(super) fn has_failed(&self) -> bool {
        self.health != Health::Works
    }

    /// Returns the number of lines lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    fn fail(&mut self) -> Vec<C> {
        self.health = Health::Failed { accepts_since: None };
        self.missing = 0;
        let lines = self.writing.iter_mut().chain(&mut self.waiting);
        lines.filter_map(|line| line.client.take()).collect()
    }

    fn lose(&mut self, count: u64) {
        self.unreported += count;
        self.missing += count;
        self.lost += count;
    }
}
