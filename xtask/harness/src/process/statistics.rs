//! Statistics of a running process, read from `/proc`.

use std::fs;

use super::Process;
use crate::verdict::{Stop, Verdict};
use crate::{os_error_text, usage};

impl Process {
    /// Returns whether the process has begun to exit: it runs no more code, but the kernel is still
    /// closing its descriptors.
    pub fn is_exiting(&self) -> Verdict<bool> {
        /// `PF_EXITING`
        const EXITING: u64 = 4;
        let stat = self.proc_file("stat")?;
        let flags = fields(&stat).nth(6).and_then(|field| field.parse::<u64>().ok());
        match flags {
            Some(flags) => Ok(flags & EXITING != 0),
            None => Err(Stop::Trouble(format!("cannot read flags from {stat:?}"))),
        }
    }

    /// Returns the CPU time that it has used, in clock ticks (100 per second on Linux).
    pub fn cpu_ticks(&self) -> Verdict<u64> {
        let stat = self.proc_file("stat")?;
        let field = |index: usize| fields(&stat).nth(index)?.parse::<u64>().ok();
        match (field(11), field(12)) {
            (Some(user), Some(system)) => Ok(user + system),
            _ => Err(Stop::Trouble(format!("cannot read processor times from {stat:?}"))),
        }
    }

    /// Returns its peak resident memory in KiB.
    pub fn peak_memory(&self) -> Verdict<u64> {
        usage::status_kib(self.pid, "VmHWM")
            .ok_or_else(|| Stop::skip("no VmHWM in /proc/PID/status"))
    }

    /// Returns the number of its open file descriptors.
    pub fn descriptors(&self) -> Verdict<usize> {
        match fs::read_dir(format!("/proc/{}/fd", self.pid.as_raw_nonzero())) {
            Ok(entries) => Ok(entries.count()),
            Err(error) => {
                Err(Stop::skip(format!("cannot list descriptors: {}", os_error_text(&error))))
            }
        }
    }

    fn proc_file(&self, name: &str) -> Verdict<String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid.as_raw_nonzero()))
            .map_err(|error| os_error_text(&error))
            .map_err(|why| Stop::skip(format!("cannot read /proc/PID/{name}: {why}")))
    }
}

/// Returns the fields of `/proc/PID/stat` after the command name, which may contain any character;
/// the first is the state.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit(')').next().unwrap_or_default().split_whitespace()
}
