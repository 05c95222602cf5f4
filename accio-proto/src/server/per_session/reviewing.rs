//! Reviews: the thread of a session waits until the reviewer has decided.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Shared;
use crate::server::connection::Ending;
use crate::session::Abort;
use crate::sink::FileSink;
use crate::sys::signal::Signal;
use crate::sys::wait::{is_ready, readable, wait};

/// A file under review, shared by the thread that waits and the one that decides.
struct Pending<K: FileSink> {
    ending: Mutex<Option<Ending<K>>>,
    verdict: Mutex<Option<Result<(), String>>>,
    decided: Signal,
}

impl<K: FileSink> Shared<'_, K> {
    /// Has a complete file reviewed; returns it to be committed or aborted.
    pub(super) fn review(&self, mut ending: Ending<K>) -> Ending<K> {
        ending.closing.prepare_review(&self.connections.sink);
        if !ending.closing.is_complete() {
            return ending;
        }
        let decided = match Signal::new() {
            Ok(decided) => decided,
            Err(error) => {
                ending.closing.fail(Abort::System(error));
                return ending;
            }
        };
        let pending =
            Arc::new(Pending { ending: Mutex::new(None), verdict: Mutex::new(None), decided });
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
                pending.decided.raise();
            }
        };
        let review = self.connections.review(&ending, Box::new(source), Box::new(decide));
        *lock(&pending.ending) = Some(ending);
        self.connections.begin_review(review);
        let ended = self.wait_for_verdict(&pending);
        // Nothing else takes it.
        let Some(mut ending) = lock(&pending.ending).take() else {
            unreachable!("only this thread takes the file under review")
        };
        if let Err(why) = ended {
            ending.closing.fail(why);
        }
        ending
    }

    fn wait_for_verdict(&self, pending: &Pending<K>) -> Result<(), Abort> {
        let stop = &self.connections.controls.stop;
        loop {
            let decided = pending.decided.as_fd();
            let mut fds = [readable(stop), readable(&decided)];
            wait(&mut fds, None).map_err(Abort::System)?;
            if let Some(verdict) = lock(&pending.verdict).take() {
                return verdict.map_err(Abort::Rejected);
            }
            if is_ready(&fds[0]) {
                return Err(Abort::Shutdown);
            }
        }
    }
}

/// Every change under these locks is one assignment, so a panic elsewhere leaves them consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
