//! Discarded files, which are dropped where that delays no connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::tuning::FREE_DISCARDS;
use super::{Shared, spawn};
use crate::panics::caught;
use crate::program_log as log;
use crate::sink::FileSink;

/// A job of the thread that frees discarded files.
pub(super) enum Discard<F> {
    /// Drops a file. `keeps_place` is set if the file counts against the connection limit.
    File { file: F, keeps_place: bool },
    /// Only asks the sink to tidy up.
    Tidy,
}

impl<K: FileSink> Shared<K> {
    /// Queues a discarded file to be dropped.
    ///
    /// Beyond a fixed number, each file that waits counts like a connection, so that the descriptors
    /// of the process stay within its limit however long a file takes to free.
    pub(super) fn push_discarded(self: &Arc<Self>, file: K::File) {
        let keeps_place = self.discarding.fetch_add(1, Ordering::Relaxed) >= FREE_DISCARDS;
        if keeps_place {
            self.places.keep();
        }
        self.push_discard(Discard::File { file, keeps_place });
    }

    /// Lets the sink tidy up after all files that are queued already.
    pub(super) fn push_tidying(self: &Arc<Self>) {
        self.push_discard(Discard::Tidy);
    }

    fn push_discard(self: &Arc<Self>, job: Discard<K::File>) {
        let start = || spawn("accio-discard".into(), self, |shared| shared.do_discards());
        if let Err(jobs) = self.lanes.discards.push(job, start) {
            // Without a thread, or after shutdown, files are dropped here.
            jobs.into_iter().for_each(|job| self.discard(job));
        }
    }

    fn do_discards(self: &Arc<Self>) {
        let mut jobs = Vec::new();
        while self.lanes.discards.take(1, &mut jobs) {
            jobs.drain(..).for_each(|job| self.discard(job));
            if self.lanes.discards.is_empty() {
                self.connections.tidy();
            }
        }
        self.lanes.discards.leave();
    }

    fn discard(&self, job: Discard<K::File>) {
        let Discard::File { file, keeps_place } = job else { return };
        if caught(|| drop(file)).is_none() {
            log::error!("the sink panicked while it discarded a file");
        }
        self.discarding.fetch_sub(1, Ordering::Relaxed);
        if keeps_place && self.places.leave() {
            self.wake.raise();
        }
    }
}
