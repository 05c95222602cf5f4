//! Reviews: the thread of a session waits until the reviewer has decided.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::Shared;
use crate::server::connection::Ending;
use crate::server::under_review::UnderReview;
use crate::session::Abort;
use crate::sink::FileSink;
use crate::sys::signal::Signal;
use crate::sys::wait::{is_ready, readable, wait};

impl<K: FileSink> Shared<'_, K> {
    /// Has a complete file reviewed; returns it to be committed or aborted.
    pub(super) fn review(&self, mut ending: Ending<K>) -> Ending<K> {
        let decided = match Signal::new() {
            Ok(decided) => Arc::new(decided),
            Err(error) => {
                ending.closing.fail(Abort::System(error));
                return ending;
            }
        };
        let raise = {
            let decided = Arc::clone(&decided);
            move || decided.raise()
        };
        let pending = match UnderReview::begin(self.connections, ending, raise) {
            Ok(pending) => pending,
            Err(failed) => return *failed,
        };
        let verdict = self.wait_for_verdict(&pending, &decided);
        let Some(mut ending) = pending.take_ending() else {
            unreachable!("only this thread takes the file under review")
        };
        if let Err(why) = verdict {
            ending.closing.fail(why);
        }
        ending
    }

    fn wait_for_verdict(&self, pending: &UnderReview<K>, decided: &Signal) -> Result<(), Abort> {
        let stop = &self.connections.controls.stop;
        loop {
            let decided = decided.as_fd();
            let mut fds = [readable(stop), readable(&decided)];
            wait(&mut fds, None).map_err(Abort::System)?;
            if let Some(verdict) = pending.take_verdict() {
                return verdict.map_err(Abort::Rejected);
            }
            if is_ready(&fds[0]) {
                self.connections.stopping();
                return Err(Abort::Shutdown);
            }
        }
    }
}
