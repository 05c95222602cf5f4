//! The calls of Linux for child processes.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use super::Process;

/// A descriptor that becomes readable when the process ends.
#[derive(Debug)]
pub(super) struct End(OwnedFd);

impl End {
    pub(super) fn of(pid: Pid) -> io::Result<End> {
        // The id of a child cannot be reused before we wait for it.
        Ok(End(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }
}

/// Waits until one of the processes has ended and returns its index, or `None` after `limit`.
pub fn wait_any(processes: &[&Process], limit: Duration) -> io::Result<Option<usize>> {
    let end = Instant::now() + limit;
    let mut fds: Vec<PollFd<'_>> =
        processes.iter().map(|process| PollFd::new(&process.end.0, PollFlags::IN)).collect();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(fds.iter().position(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
