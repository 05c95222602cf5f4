//! The right of a worker to make a call that may block, and the commits that it then makes itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Shared;
use super::slots::Key;
use super::tuning::{INLINE_COMMIT, MAX_OPENING_WORKERS};
use crate::server::connection::Ending;
use crate::sink::FileSink;

/// Counts a thread inside a call that may block, until it is dropped.
pub(super) struct Permit<'a>(pub(super) &'a AtomicUsize);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: FileSink> Shared<K> {
    /// Commits a complete file, immediately if that is cheaper than queueing it.
    pub(super) fn commit(
        self: &Arc<Self>,
        key: Key,
        ending: Ending<K>,
        permit: Option<Permit<'_>>,
    ) {
        if ending.closing.bytes() > INLINE_COMMIT {
            return self.push_ending(key, ending);
        }
        let Some(_permit) = permit.or_else(|| self.permit()) else {
            return self.push_ending(key, ending);
        };
        if !self.groups {
            return self.finish(key, ending);
        }
        match self.begin_lone_group() {
            Some(_group) => self.finish_group(vec![(key, ending)]),
            None => self.push_ending(key, ending),
        }
    }

    /// Returns the right to commit a group of a single file, unless a group is being committed:
    /// then the file joins the next one.
    fn begin_lone_group(&self) -> Option<Permit<'_>> {
        let begun =
            self.committing.compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        begun.then(|| Permit(&self.committing))
    }

    /// Returns a permit for a call that may block, unless too many workers are in one.
    pub(super) fn permit(&self) -> Option<Permit<'_>> {
        let before = self.opening.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(&self.opening);
        (before < MAX_OPENING_WORKERS).then_some(permit)
    }
}
