//! Committers: they take jobs from the lanes, and commit files in groups step by step.

use super::super::tuning::COMMIT_GROUP;
use super::{Key, Named, Notified, Thread, World};

/// Files that are committed together.
pub(super) struct Group {
    /// The members, and whether each could be claimed before it got its name.
    members: Vec<(Key, u64, bool)>,
    synced: usize,
    named: usize,
    directory_synced: bool,
    reported: usize,
}

impl Group {
    pub(super) fn new(jobs: Vec<(Key, u64)>) -> Self {
        let members = jobs.into_iter().map(|(key, id)| (key, id, false)).collect();
        Group { members, synced: 0, named: 0, directory_synced: false, reported: 0 }
    }
}

impl World {
    /// An idle committer takes jobs from its lane.
    pub(super) fn commit_next(&mut self) {
        let mut jobs = Vec::new();
        match self.random.below(3) {
            0 if !self.markers.is_empty() => {
                assert!(self.markers.take(1, &mut jobs));
                self.threads.extend(jobs.into_iter().map(|(key, id)| Thread::Marker(key, id)));
            }
            1 if !self.commits.is_empty() => {
                assert!(self.commits.take(COMMIT_GROUP, &mut jobs));
                self.largest_group = self.largest_group.max(jobs.len());
                assert!(jobs.len() <= COMMIT_GROUP);
                let taken: Vec<u64> = self.queued.drain(..jobs.len()).collect();
                assert!(jobs.iter().map(|(_, id)| id).eq(&taken), "the oldest come first");
                assert!(jobs.len() == COMMIT_GROUP || self.queued.is_empty(), "all that wait");
                self.threads.push(Thread::Group(Group::new(jobs)));
            }
            _ if !self.discards.is_empty() => {
                assert!(self.discards.take(1, &mut Vec::new()));
                self.threads.push(Thread::Discard);
            }
            _ => {}
        }
    }

    pub(super) fn push_commit(&mut self, key: Key, id: u64) {
        self.queued.push(id);
        self.commits.push((key, id), || Ok(())).unwrap();
    }

    /// The next step of a group: data, names, the directory, then the clients.
    pub(super) fn advance(&mut self, mut group: Group) -> Option<Thread> {
        let count = group.members.len();
        if group.synced < count {
            self.fate(group.members[group.synced].1).data_synced = true;
            group.synced += 1;
        } else if group.named < count {
            let (key, id, claimed) = &mut group.members[group.named];
            *claimed = self.slots.claim(*key);
            group.named += 1;
            if *claimed {
                let id = *id;
                self.name(id, Named::File);
            }
        } else if !group.directory_synced {
            group.directory_synced = true;
            for (_, id, _) in group.members.iter().filter(|(_, _, claimed)| *claimed) {
                self.fate(*id).name_synced = true;
            }
        } else {
            let (key, id, claimed) = group.members[group.reported];
            group.reported += 1;
            if claimed {
                self.report(id);
                self.release(key, id, Notified::Fin);
            }
        }
        (group.reported < count).then_some(Thread::Group(group))
    }
}
