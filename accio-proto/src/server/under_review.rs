//! A file under review whose connection waits outside the event queue.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connection::Ending;
use super::connections::Connections;
use crate::sink::FileSink;

/// A file under review, shared by the owner of its connection and the thread that decides.
pub(super) struct UnderReview<K: FileSink> {
    ending: Mutex<Option<Ending<K>>>,
    verdict: Mutex<Option<Result<(), String>>>,
}

impl<K: FileSink> UnderReview<K> {
    /// Passes a complete file to the reviewer. `decided` is called, on any thread, once there is a
    /// verdict to [take](Self::take_verdict).
    ///
    /// # Errors
    ///
    /// Returns the connection if the sink could not prepare the review: the transfer has failed.
    pub(super) fn begin(
        connections: &Connections<K>,
        mut ending: Ending<K>,
        decided: impl FnOnce() + Send + 'static,
    ) -> Result<Arc<Self>, Box<Ending<K>>> {
        ending.closing.prepare_review(&connections.sink);
        if !ending.closing.is_complete() {
            return Err(Box::new(ending));
        }
        let pending = UnderReview { ending: Mutex::new(None), verdict: Mutex::new(None) };
        let pending = Arc::new(pending);
        let source = {
            let pending = Arc::clone(&pending);
            move || match &*lock(&pending.ending) {
                Some(ending) => ending.closing.descriptor(),
                None => Err(io::Error::other("the server is stopping")),
            }
        };
        let decide = {
            let pending = Arc::clone(&pending);
            move |verdict| {
                *lock(&pending.verdict) = Some(verdict);
                decided();
            }
        };
        let review = connections.review(&ending, Box::new(source), Box::new(decide));
        *lock(&pending.ending) = Some(ending);
        connections.begin_review(review);
        Ok(pending)
    }

    /// Returns the verdict once: the reason for a rejected file.
    pub(super) fn take_verdict(&self) -> Option<Result<(), String>> {
        lock(&self.verdict).take()
    }

    /// Returns the connection once. The reviewer can no longer read the file.
    pub(super) fn take_ending(&self) -> Option<Ending<K>> {
        lock(&self.ending).take()
    }
}

/// Every change under these locks is one assignment, so a panic elsewhere leaves them consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
