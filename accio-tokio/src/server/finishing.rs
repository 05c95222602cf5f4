//! The end of connections: commits, one by one or in groups, and aborts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use accio_proto::{FileSink, panics};

use super::calls::Calls;
use super::share::Share;
use super::shared::{Finishing, Place, Shared};

impl<K: FileSink, C: Calls<K>> Shared<K, C> {
    /// Commits or aborts the file of a connection, and reports the connection. If the file is committed
    /// in a group, another thread does that later.
    pub(super) fn finish(self: &Arc<Self>, finishing: Finishing<K>) {
        if self.driver.commits_in_groups() && finishing.ending.is_complete() {
            if self.commits.add(finishing) {
                start_group_thread(Arc::clone(self));
            }
            return;
        }
        let Finishing { ending, place, unreported } = finishing;
        let permit = place.permit.clone();
        let discarded = self.driver.finish(ending, move || Place::free(place));
        // Until a discarded file is closed, its descriptor counts like a connection.
        let _kept = discarded.as_ref().map(|_| permit);
        self.discard(discarded);
        drop(unreported);
    }

    fn finish_group(&self, group: Vec<Finishing<K>>) {
        let mut unreported = Vec::with_capacity(group.len());
        let mut permits = Vec::with_capacity(group.len());
        let mut members = Vec::with_capacity(group.len());
        for finishing in group {
            let place = finishing.place;
            unreported.push(finishing.unreported);
            permits.push(place.permit.clone());
            members.push((finishing.ending, move || Place::free(place)));
        }
        let discarded = self.driver.finish_all(members);
        // As many as there are files with open descriptors.
        permits.truncate(discarded.len());
        discarded.into_iter().for_each(|file| self.discard(Some(file)));
        drop(unreported);
    }

    /// Drops the discarded file of a connection, and lets the sink tidy up: once for many files. The
    /// connection has been reported, so a panic must not report it again.
    fn discard(&self, file: Option<K::File>) {
        if file.is_none() {
            return;
        }
        panics::discard(file);
        if self.discarded.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        loop {
            let before = self.discarded.load(Ordering::SeqCst);
            self.driver.tidy();
            let order = Ordering::SeqCst;
            if self.discarded.compare_exchange(before, 0, order, order).is_ok() {
                return;
            }
        }
    }
}

/// Starts a thread that commits groups until none waits or its [share](Share) is used up.
fn start_group_thread<K: FileSink, C: Calls<K>>(shared: Arc<Shared<K, C>>) {
    tokio::task::spawn_blocking(move || {
        let thread = GroupThread(shared);
        let mut share = Share::begin();
        while share.lasts()
            && let Some(group) = thread.0.commits.next()
        {
            thread.0.finish_group(group);
        }
    });
}

/// A thread that commits groups. If groups wait when it ends, even by a panic, another one continues.
struct GroupThread<K: FileSink, C: Calls<K>>(Arc<Shared<K, C>>);

impl<K: FileSink, C: Calls<K>> Drop for GroupThread<K, C> {
    fn drop(&mut self) {
        if self.0.commits.leave() {
            start_group_thread(Arc::clone(&self.0));
        }
    }
}
