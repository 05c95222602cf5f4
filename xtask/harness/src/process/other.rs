//! Child processes on systems other than Linux, where nothing limits another process and its end
//! is noticed by asking for it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};

use super::{POLL, Process};

/// Nothing: [`wait_any`] asks for the state of the process.
#[derive(Debug)]
pub(super) struct End;

impl End {
    pub(super) fn of(_: Pid) -> io::Result<End> {
        Ok(End)
    }
}

/// Fails: only Linux can set a limit of another process.
pub(crate) fn prlimit(_: Pid, _: Resource, _: Rlimit) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Waits until one of the processes has ended and returns its index, or `None` after `limit`.
pub fn wait_any(processes: &[&Process], limit: Duration) -> io::Result<Option<usize>> {
    let end = Instant::now() + limit;
    loop {
        for (index, process) in processes.iter().enumerate() {
            if process.is_over()? {
                return Ok(Some(index));
            }
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}
