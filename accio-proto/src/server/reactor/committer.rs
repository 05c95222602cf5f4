//! The committers: threads for calls that may block on the disk, organized in three lanes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::discards::Discard;
use super::lane::Lane;
use super::slots::Key;
use super::tuning::{COMMIT_GROUP, COMMIT_THREADS, GROUP_THREADS, MARKER_THREADS};
use super::{Connection, ConnectionInfo, Ending, Permit, Shared, spawn};
use crate::copier::Copier;
use crate::panics::caught;
use crate::program_log as log;
use crate::session::Closing;
use crate::sink::FileSink;

/// The job queues of the committers. Each queue has its own threads, so that error markers never
/// wait for commits of large files, and neither waits for disk space to be freed.
pub(super) struct Lanes<K: FileSink> {
    pub(super) markers: Lane<Marker<K>>,
    pub(super) commits: Lane<Commit<K>>,
    pub(super) discards: Lane<Discard<K::File>>,
}

/// A short job.
pub(super) enum Marker<K: FileSink> {
    /// Writes the error marker of a failed connection and finishes the connection.
    Abort(Key, Ending<K>),
    /// Writes the error marker of a connection whose session is stuck in another thread.
    Abandon(ConnectionInfo),
    /// Asks the sink whether it has room.
    Room,
}

/// A job that may take as long as the disk does.
pub(super) enum Commit<K: FileSink> {
    File(Key, Ending<K>),
    /// A complete file to prepare for its review.
    Review(Key, Ending<K>),
    /// A turn that opens a file, while too many workers are blocked.
    Turn(Key, Connection<K>),
}

impl<K: FileSink> Lanes<K> {
    pub(super) fn new(groups: bool) -> Self {
        Lanes {
            markers: Lane::new(MARKER_THREADS),
            commits: Lane::new(if groups { GROUP_THREADS } else { COMMIT_THREADS }),
            // One thread, because freeing space is never urgent and holds locks of the file system.
            discards: Lane::new(1),
        }
    }
}

impl<K: FileSink> Shared<K> {
    /// Starts the thread that every server needs, and makes it ask the sink for room in advance, so
    /// that the first connection need not wait for the answer.
    pub(super) fn start_committer(self: &Arc<Self>) -> io::Result<()> {
        self.lanes.markers.start(|| self.start_marker_thread())?;
        if self.room.look(Instant::now()).ask {
            self.push_marker(Marker::Room);
        }
        Ok(())
    }

    /// Queues a finished connection for its commit or abort.
    pub(super) fn push_ending(self: &Arc<Self>, key: Key, ending: Ending<K>) {
        if ending.closing.is_complete() {
            self.push_commit(Commit::File(key, ending));
        } else {
            self.push_marker(Marker::Abort(key, ending));
        }
    }

    pub(super) fn push_turn(self: &Arc<Self>, key: Key, connection: Connection<K>) {
        self.push_commit(Commit::Turn(key, connection));
    }

    pub(super) fn push_review(self: &Arc<Self>, key: Key, ending: Ending<K>) {
        self.push_commit(Commit::Review(key, ending));
    }

    pub(super) fn push_marker(self: &Arc<Self>, job: Marker<K>) {
        if let Err(jobs) = self.lanes.markers.push(job, || self.start_marker_thread()) {
            jobs.into_iter().for_each(|job| self.do_marker(job));
        }
    }

    fn push_commit(self: &Arc<Self>, job: Commit<K>) {
        let start = || spawn("accio-commit".into(), self, |shared| shared.do_commits());
        if let Err(mut jobs) = self.lanes.commits.push(job, start) {
            self.do_commit_group(&mut jobs, &mut None);
        }
    }

    fn start_marker_thread(self: &Arc<Self>) -> io::Result<()> {
        spawn("accio-marker".into(), self, |shared| {
            let mut jobs = Vec::new();
            while shared.lanes.markers.take(1, &mut jobs) {
                let aborts = matches!(jobs[..], [Marker::Abort(..)]);
                jobs.drain(..).for_each(|job| shared.do_marker(job));
                if aborts && shared.lanes.markers.is_empty() {
                    shared.push_tidying();
                }
            }
            shared.lanes.markers.leave();
        })
    }

    fn do_marker(self: &Arc<Self>, job: Marker<K>) {
        match job {
            Marker::Abort(key, ending) => self.finish(key, ending),
            Marker::Abandon(info) => {
                log::warn!("connection {}: ended without its thread, which is stuck", info.id);
                self.connections.abandon(info);
                self.unreported.fetch_sub(1, Ordering::SeqCst);
            }
            Marker::Room => {
                self.room.answer(self.connections.has_room(), Instant::now());
                self.wake.raise();
            }
        }
    }

    fn do_commits(self: &Arc<Self>) {
        let mut jobs = Vec::new();
        let mut copier = None;
        let count = if self.groups { COMMIT_GROUP } else { 1 };
        while self.lanes.commits.take(count, &mut jobs) {
            self.do_commit_group(&mut jobs, &mut copier);
        }
        self.lanes.commits.leave();
    }

    fn do_commit_group(self: &Arc<Self>, jobs: &mut Vec<Commit<K>>, copier: &mut Option<Copier>) {
        let mut group = Vec::with_capacity(jobs.len());
        let mut turns = Vec::new();
        for job in jobs.drain(..) {
            match job {
                Commit::File(key, ending) => group.push((key, ending)),
                Commit::Review(key, ending) => self.start_review(key, ending),
                Commit::Turn(key, connection) => turns.push((key, connection)),
            }
        }
        if self.groups {
            let _group = self.begin_group();
            self.finish_group(group);
        } else {
            group.into_iter().for_each(|(key, ending)| self.finish(key, ending));
        }
        for (key, connection) in turns {
            let copier = copier.get_or_insert_with(|| self.connections.copier());
            self.take_turn(key, connection, copier, None);
        }
    }

    /// Counts a group until the result is dropped.
    fn begin_group(&self) -> Permit<'_> {
        self.committing.fetch_add(1, Ordering::Relaxed);
        Permit(&self.committing)
    }

    /// Commits a group of files together, then reports each connection and notifies its peer.
    pub(super) fn finish_group(self: &Arc<Self>, group: Vec<(Key, Ending<K>)>) {
        if group.len() > 1 {
            log::debug!("committing a group of {} files", group.len());
        }
        let members: Vec<_> = group.iter().map(|(key, ending)| (*key, ending.info)).collect();
        let closings = group.into_iter().map(|(_, ending)| ending.closing).collect();
        let claim = |index: usize| {
            let (key, _): (Key, ConnectionInfo) = members[index];
            self.slots.claim(key)
        };
        let finish = || Closing::finish_all(closings, &self.connections.sink, &claim);
        let Some(ended) = caught(finish) else {
            return members.iter().for_each(|(key, info)| self.lose(*key, Some(*info)));
        };
        for ((key, info), ended) in members.into_iter().zip(ended) {
            let Some(ended) = ended else { continue };
            let release = self.release(key, info);
            let report = || self.connections.report(ended, info, release);
            match caught(report) {
                Some(discarded) => {
                    self.unreported.fetch_sub(1, Ordering::SeqCst);
                    if let Some(file) = discarded {
                        self.push_discarded(file);
                    }
                }
                None => self.lose(key, Some(info)),
            }
        }
    }
}
