//! The threads of a server whose system calls fail.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Pid;

use super::work::{WARM_UP, length};
use crate::directory_oracle::content;
use crate::errno_table::TRANSIENT;
use crate::load::{Ending, UploadOutcome, upload};
use crate::strace::{self, InjectedFault};
use accio_harness::context::wait_until;
use accio_harness::peer::{Dialect, SOON};
use accio_harness::process::Process;
use accio_harness::verdict::{Stop, Verdict, ensure};

/// A kind of thread of a server. Only one of each kind runs while clients upload one after the
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerThread {
    /// Enforces time limits, and accepts what the worker leaves.
    Front,
    /// Accepts, greets and moves bytes; commits small files.
    Worker,
    /// Writes error markers and asks for free space.
    Marker,
    /// Commits large files, and groups of files with `--durable`.
    Committer,
    /// Frees discarded files and writes the names of markers to the disk.
    Discarder,
    /// Writes the journal.
    Journal,
    /// Writes the log.
    Log,
}

impl ServerThread {
    /// Returns its part of a case name.
    pub(super) fn name(self) -> &'static str {
        match self {
            ServerThread::Front => "front",
            ServerThread::Worker => "worker",
            ServerThread::Marker => "marker",
            ServerThread::Committer => "committer",
            ServerThread::Discarder => "discarder",
            ServerThread::Journal => "journal",
            ServerThread::Log => "log",
        }
    }

    /// Returns the name of the thread; the front thread has that of the program.
    fn system_name(self) -> Option<&'static str> {
        match self {
            ServerThread::Front => None,
            ServerThread::Worker => Some("accio-worker-1"),
            ServerThread::Marker => Some("accio-marker"),
            ServerThread::Committer => Some("accio-commit"),
            ServerThread::Discarder => Some("accio-discard"),
            ServerThread::Journal => Some("accio-journal"),
            ServerThread::Log => Some("accio-log"),
        }
    }

    /// Returns whether the kernel can return this error to the thread.
    pub(super) fn may_fail(self, fault: &InjectedFault) -> bool {
        // The front thread reads nothing but event counters, which do not fail.
        self != ServerThread::Front || fault.call != "read" || TRANSIENT.contains(&fault.errno)
    }

    /// Waits until the server has this thread, and returns it.
    pub(super) fn of(self, server: &Process) -> Verdict<Pid> {
        let Some(name) = self.system_name() else { return Ok(server.pid()) };
        let mut found = None;
        wait_until(SOON, || {
            found = strace::thread_named(server.pid(), name);
            found.is_some()
        });
        found.ok_or_else(|| Stop::fault(format!("a thread {name}"), "none"))
    }
}

/// Uploads a file and breaks off another upload, so that the server starts the threads that it
/// starts on demand.
pub(super) fn start_threads(server: SocketAddr) -> Verdict {
    let bytes = content(WARM_UP, length(WARM_UP));
    let send = |ending| upload(server, Dialect::Accio, &bytes, ending, SOON);
    let outcome = send(Ending::Fin);
    ensure(outcome == UploadOutcome::Confirmed, "a healthy upload", || format!("{outcome:?}"))?;
    // The reset may overtake the bytes, so the server may see an empty upload, which fails as well.
    send(Ending::Reset);
    // The thread that frees the file may still have to start.
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}
