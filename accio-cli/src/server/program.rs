//! The hooks of a server program.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use accio_proto::Outcome;

use crate::Failure;

/// How long a stopped server may take to abort the unfinished transfers: it exits within a second
/// even if a disk or a pipe blocks a worker.
const GRACE: Duration = Duration::from_millis(900);

/// What a server program does besides serving.
pub trait Program: Send + Sync + 'static {
    /// Returns the folder of the clients' files, where no journal may be.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Returns whether a client is told of a complete file only once that is on the disk. Its line in
    /// the journal then is too.
    fn is_durable(&self) -> bool {
        false
    }

    /// Does what needs more rights than serving, then drops them, except those on the directory
    /// `journal` is in and the right to read files below the directories `readable`. Called once the sockets are open and before any other thread starts.
    ///
    /// # Errors
    ///
    /// The program ends.
    fn confine(
        &self,
        journal: Option<BorrowedFd<'_>>,
        readable: &[OwnedFd],
    ) -> Result<(), Failure> {
        let _ = (journal, readable);
        Ok(())
    }

    /// Checks whether files can be received. It may block: another thread then reports that there was
    /// no answer.
    ///
    /// # Errors
    ///
    /// The reason why the server is not ready, in a few words.
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }

    /// Called for each connection that has ended, by a worker, which it blocks.
    fn observe(&self, outcome: &Outcome) {
        let _ = outcome;
    }

    /// Returns how many complete files got no command of `--on-commit`; `None` if there is no such
    /// command.
    fn lost_commands(&self) -> Option<u64> {
        None
    }

    /// Called before unfinished transfers are aborted: from now on, nothing may block a worker.
    fn stopping(&self) {}

    /// Returns how long aborting may take before the process ends regardless.
    fn grace(&self) -> Duration {
        GRACE
    }

    /// Called after the last connection: waits for work that connections started, until
    /// `deadline()` at most, which a second signal may move.
    fn finish(&self, deadline: &dyn Fn() -> Instant) {
        let _ = deadline;
    }
}
