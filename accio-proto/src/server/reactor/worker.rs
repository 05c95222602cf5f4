//! The workers, which accept connections and move content, one event at a time.

use std::sync::Arc;

use super::slots::Key;
use super::tuning::SPARE_WORKER_STAYS;
use super::{HALT, LISTENERS, Shared, spawn};
use crate::copier::Copier;
use crate::sink::FileSink;

/// How long a worker without events waits before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stay {
    UntilTheEnd,
    /// Started because others were blocked; ends when none is any more.
    ForAWhile,
}

impl<K: FileSink> Shared<K> {
    /// Starts one more worker. Only the front thread calls this.
    pub(super) fn start_worker(self: &Arc<Self>, stay: Stay) -> std::io::Result<()> {
        let Some(place) = self.watch.join() else {
            return Err(std::io::Error::other("the maximum number of workers is running"));
        };
        let name = format!("accio-worker-{}", place + 1);
        spawn(name, self, move |shared| {
            let _left = LeaveOnDrop(&shared, place);
            shared.work(place, stay);
        })
        .inspect_err(|_| self.watch.leave(place))
    }

    fn work(self: &Arc<Self>, place: usize, stay: Stay) {
        let mut copier = self.connections.copier();
        let patience = (stay == Stay::ForAWhile).then_some(SPARE_WORKER_STAYS);
        loop {
            match self.sessions.wait(patience) {
                Ok(Some(HALT)) => return,
                Ok(Some(token)) => {
                    if self.watch.begin(place) {
                        self.wake.raise();
                    }
                    match token {
                        LISTENERS.. => self.accept(token),
                        token => self.serve(Key::from_token(token), &mut copier),
                    }
                    self.watch.end(place);
                    if stay == Stay::ForAWhile && self.watch.is_calm() {
                        return;
                    }
                }
                Ok(None) if stay == Stay::ForAWhile => return,
                Ok(None) => {}
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Handles one event of a session.
    fn serve(self: &Arc<Self>, key: Key, copier: &mut Copier) {
        let Some(connection) = self.slots.take(key) else { return };
        if !connection.may_open() {
            return self.take_turn(key, connection, copier, None);
        }
        match self.permit() {
            // Too many workers wait for the disk already; the others keep moving content into files
            // that are open.
            None => self.push_turn(key, connection),
            permit => self.take_turn(key, connection, copier, permit),
        }
    }
}

/// Records the end of the worker when dropped, even after a panic.
struct LeaveOnDrop<'a, K: FileSink>(&'a Shared<K>, usize);

impl<K: FileSink> Drop for LeaveOnDrop<'_, K> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic may have left a listening socket without a thread that watches it.
            self.0.fail(std::io::Error::other("a worker panicked"));
        }
        self.0.watch.leave(self.1);
    }
}
