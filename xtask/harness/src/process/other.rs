//! Child processes on systems other than Linux, where the end of a process is noticed by asking for
//! it.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::Process;

/// How often [`wait_any`] asks.
const POLL: Duration = Duration::from_millis(4);

/// Nothing: [`wait_any`] asks for the state of the process.
#[derive(Debug)]
pub(super) struct End;

impl End {
    pub(super) fn of(_: Pid) -> io::Result<End> {
        Ok(End)
    }
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
