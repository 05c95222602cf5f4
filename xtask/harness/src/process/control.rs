//! Signals and limits of a running process.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, WaitId, WaitIdOptions};

use super::Process;
use crate::verdict::{Stop, Verdict};
use crate::{os_error_text, resource_limits};

/// Interval at which to check whether a process has stopped.
const POLL: Duration = Duration::from_millis(4);

impl Process {
    /// Sends a signal to its whole group.
    pub fn signal_group(&self, signal: Signal) {
        // The group may have ended already.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Sends a signal to the process but not to its group, like a shell's `kill`.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid, signal)?)
    }

    /// Sets its soft limit on a resource; a skip if this machine does not allow that.
    pub fn limit(&self, resource: Resource, value: u64) -> Verdict {
        let maximum = rustix::process::getrlimit(resource).maximum;
        let limit = Rlimit { current: Some(value), maximum };
        resource_limits::prlimit(self.pid, resource, limit)
            .map(drop)
            .map_err(|error| os_error_text(&error))
            .map_err(|why| Stop::skip(format!("cannot limit another process: {why}")))
    }

    /// Suspends all its threads; [`Signal::CONT`] resumes them.
    pub fn pause(&self) -> Verdict {
        self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let until = Instant::now() + Duration::from_secs(5);
        // The stop is reported once its last thread has stopped; from then on it reads nothing.
        while rustix::process::waitid(WaitId::Pid(self.pid), options)?.is_none() {
            if Instant::now() >= until {
                return Err(Stop::Trouble(format!("{} does not stop", self.name())));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}
