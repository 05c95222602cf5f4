//! The hooks of a server program.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use accio_proto::{Acknowledgement, Outcome};

use crate::Failure;

/// How long a stopping server may take to abort unfinished transfers. It exits within a second even
/// if a disk or a pipe blocks a worker.
const GRACE: Duration = Duration::from_millis(900);

/// Hooks of a server program, called while the server runs.
pub trait Program: Send + Sync + 'static {
    /// Returns the directory of received files, which must not contain the journal.
    fn file_dir(&self) -> Option<&Path> {
        None
    }

    /// Returns whether a client is notified of a complete file only after the file is on the disk.
    /// If so, the journal's line is on the disk by then, too.
    fn is_durable(&self) -> bool {
        false
    }

    /// Returns whether [`confine`](Program::confine) removes the permission to open files outside
    /// the directory of received files.
    fn is_confined(&self) -> bool {
        false
    }

    /// Performs the tasks that need more permissions than serving does, then drops these
    /// permissions, except for reading files below the directories `readable`. Called once the
    /// sockets are open and before any other thread starts.
    ///
    /// # Errors
    ///
    /// Returns an error that ends the program.
    fn confine(&self, readable: &[OwnedFd]) -> Result<(), Failure> {
        let _ = readable;
        Ok(())
    }

    /// Checks whether files can be received. May block: the health check then reports that the disk
    /// does not answer.
    ///
    /// # Errors
    ///
    /// Returns a short reason why the server is not ready.
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }

    /// Called for each finished connection, before its client is notified. Must not block, because
    /// any thread of the server may call it.
    fn observe(&self, outcome: &Outcome) {
        let _ = outcome;
    }

    /// Returns the number of complete files for which no `--on-commit` command was run; `None`
    /// without such a command.
    fn lost_commands(&self) -> Option<u64> {
        None
    }

    /// Returns whether [`record`](Program::record) is implemented. If not, or if there is a
    /// journal, `record` is never called.
    fn records(&self) -> bool {
        false
    }

    /// Records the outcome of a connection. Drop `client` once the record is written: that notifies
    /// the client. Must not block; use another thread to write.
    fn record(&self, outcome: Outcome, client: Acknowledgement) {
        let _ = outcome;
        client.send();
    }

    /// Called before unfinished transfers are aborted. From now on, nothing may block a worker.
    fn stopping(&self) {}

    /// Returns how long aborting transfers may take before the process exits regardless.
    fn grace(&self) -> Duration {
        GRACE
    }

    /// Called after the last connection. Waits for work that connections started, at most until
    /// `deadline()`, which a second signal may change.
    fn finish(&self, deadline: &dyn Fn() -> Instant) {
        let _ = deadline;
    }
}
