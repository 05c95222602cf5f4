//! The hooks of a server program.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use accio_proto::{Acknowledgement, Outcome};

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

    /// Returns whether [`confine`](Program::confine) takes away the right to open files outside of
    /// the folder.
    fn is_confined(&self) -> bool {
        false
    }

    /// Does what needs more rights than serving, then drops them, except the right to read files
    /// below the directories `readable`. Called once the sockets are open and before any other thread
    /// starts.
    ///
    /// # Errors
    ///
    /// The program ends.
    fn confine(&self, readable: &[OwnedFd]) -> Result<(), Failure> {
        let _ = readable;
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

    /// Called for each connection that has ended, before its client is told. It must not block, for
    /// any thread of the server may call it.
    fn observe(&self, outcome: &Outcome) {
        let _ = outcome;
    }

    /// Returns how many complete files got no command of `--on-commit`; `None` if there is no such
    /// command.
    fn lost_commands(&self) -> Option<u64> {
        None
    }

    /// Returns whether [`record`](Program::record) has something to do. Without it, or with a
    /// journal, `record` is never called.
    fn records(&self) -> bool {
        false
    }

    /// Takes the outcome of a connection, and `client` to drop once that is written; dropping it
    /// tells the client. It must not block: another thread has to write.
    fn record(&self, outcome: Outcome, client: Acknowledgement) {
        let _ = outcome;
        client.send();
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
