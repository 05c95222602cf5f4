//! The end of connections: commits, one by one or in groups, and aborts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use accio_proto::FileSink;

use super::calls::{Broken, Calls, caught};
use super::shared::{Finishing, Place, Shared};

impl<K: FileSink, C: Calls<K>> Shared<K, C> {
    /// Commits or aborts the file of a connection, and reports the connection. If the file is committed
    /// in a group, another thread does that later.
    pub(super) fn finish(self: &Arc<Self>, finishing: Finishing<K>) {
        if self.driver.commits_in_groups() && finishing.ending.is_complete() {
            if self.commits.add(finishing) {
                let shared = Arc::clone(self);
                tokio::task::spawn_blocking(move || {
                    while let Some(group) = shared.commits.next() {
                        shared.finish_group(group);
                    }
                });
            }
            return;
        }
        let Finishing { ending, place, unreported } = finishing;
        self.discard(self.driver.finish(ending, move || Place::free(place)));
        drop(unreported);
    }

    fn finish_group(&self, group: Vec<Finishing<K>>) {
        let lost: Vec<_> = group.iter().map(|finishing| finishing.ending.lost()).collect();
        let mut unreported = Vec::with_capacity(group.len());
        let mut members = Vec::with_capacity(group.len());
        for finishing in group {
            let place = finishing.place;
            unreported.push(finishing.unreported);
            members.push((finishing.ending, move || Place::free(place)));
        }
        match caught(|| self.driver.finish_all(members)) {
            Ok(discarded) => discarded.into_iter().for_each(|file| self.discard(Some(file))),
            Err(Broken::Panic | Broken::Shutdown) => {
                lost.into_iter().for_each(|lost| self.driver.abandon(lost));
            }
        }
        drop(unreported);
    }

    /// Drops the discarded file of a connection, and lets the sink tidy up: once for many files. The
    /// connection has been reported, so a panic must not report it again.
    fn discard(&self, file: Option<K::File>) {
        if file.is_none() {
            return;
        }
        // The program's hook has reported a panic.
        let _ = caught(|| drop(file));
        if self.discarded.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        loop {
            let before = self.discarded.load(Ordering::SeqCst);
            let _ = caught(|| self.driver.tidy());
            let order = Ordering::SeqCst;
            if self.discarded.compare_exchange(before, 0, order, order).is_ok() {
                return;
            }
        }
    }
}
