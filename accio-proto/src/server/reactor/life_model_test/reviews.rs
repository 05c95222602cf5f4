//! Reviews: a complete file is parked until the reviewer decides, which may be after the stop.

use super::{IDLE, Key, Session, World};

impl World {
    /// A committer parks a connection whose file must be reviewed. Its socket is not armed.
    pub(super) fn start_review(&mut self, key: Key, session: Session) {
        let id = session.id;
        self.fate(id).accepted = Some(false);
        let session = Session { is_reviewed: true, ..session };
        // If the connection was abandoned, the stop ends it.
        let Ok(queue) = self.slots.park(key, session, |_| Ok::<_, ()>(())) else { return };
        if queue {
            self.deadlines.push(self.now + IDLE, key.index);
        }
        // The stop may have passed this slot already.
        if self.stopping && self.slots.take(key).is_some() {
            return self.push_marker(key, id);
        }
        self.reviews.push((key, id));
    }

    /// The reviewer decides on one of its files, in any order.
    pub(super) fn decide(&mut self) {
        if self.reviews.is_empty() {
            return;
        }
        let index = self.random.below(self.reviews.len());
        let (key, id) = self.reviews.swap_remove(index);
        let Some(session) = self.slots.take(key) else {
            assert!(self.stopping, "only a stop takes a file from the reviewer");
            return;
        };
        assert!(session.is_reviewed && session.id == id, "another connection");
        if self.random.below(2) == 0 {
            self.fate(id).accepted = Some(true);
            self.push_commit(key, id);
        } else {
            self.push_marker(key, id);
        }
    }
}
