//! Reviews: parks a complete file until the reviewer has decided.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::slots::{Key, Unparked};
use super::{Connection, Ending, Parking, Shared};
use crate::session::Abort;
use crate::sink::FileSink;

impl<K: FileSink> Shared<K> {
    /// Prepares a complete file, parks it, and passes it to the reviewer. Runs in a committer.
    pub(super) fn start_review(self: &Arc<Self>, key: Key, mut ending: Ending<K>) {
        ending.closing.prepare_review(&self.connections.sink);
        if !ending.closing.is_complete() {
            return self.push_ending(key, ending);
        }
        let source = {
            let shared = Arc::clone(self);
            move || match shared.slots.with(key, |connection| match connection {
                Connection::Reviewing(ending) => ending.closing.descriptor(),
                _ => Ok(None),
            }) {
                Some(descriptor) => descriptor,
                None => Err(io::Error::other("the server is stopping")),
            }
        };
        let decide = {
            let shared = Arc::clone(self);
            move |verdict| shared.decide(key, verdict)
        };
        let review = self.connections.review(&ending, Box::new(source), Box::new(decide));
        let connection = Connection::Reviewing(Box::new(ending));
        let deadline = connection.deadline(&self.connections.config);
        // The socket is not armed: nothing that the client does matters any more.
        match self.slots.park(key, connection, |_| Ok::<_, ()>(())) {
            Ok(queue) => {
                if queue && self.queue_deadline(deadline, key.index) {
                    self.wake.raise();
                }
            }
            Err(Unparked::Refused(connection, ()) | Unparked::Abandoned(connection)) => {
                return drop(connection);
            }
        }
        // The stop may have passed this slot already.
        if self.stopping.load(Ordering::SeqCst) {
            if let Some(connection) = self.slots.take(key) {
                let aborted = self.connections.abort(connection, Abort::Shutdown);
                self.settle(key, aborted, Parking::Again);
            }
            return;
        }
        self.connections.begin_review(review);
    }

    /// Commits or aborts a file whose review is over. Any thread may call it; it does not block.
    fn decide(self: &Arc<Self>, key: Key, verdict: Result<(), String>) {
        // Without a value, the server has stopped and aborted the file.
        let Some(Connection::Reviewing(mut ending)) = self.slots.take(key) else { return };
        if let Err(why) = verdict {
            ending.closing.fail(Abort::Rejected(why));
        }
        self.push_ending(key, *ending);
    }
}
