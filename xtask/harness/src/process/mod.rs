//! Child processes. Each has its own process group, which is killed when its handle is dropped or
//! the run is interrupted, and every wait has a time limit. Only this module starts processes.

mod control;
mod groups;
#[cfg_attr(linux_sys, path = "linux.rs")]
#[cfg_attr(not(linux_sys), path = "other.rs")]
mod imp;
mod run;
mod statistics;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use self::groups::groups;
pub(crate) use self::groups::groups_of;
pub use self::groups::{
    EndedProcesses, OwnEnd, end_all_of, kill_all_groups, take_ended, while_none_starts,
};
#[cfg(linux_sys)]
pub(crate) use self::groups::{adopt_orphans, set_confined};
pub use self::imp::wait_any;
pub use self::run::{checked_output, foreground, output, plain_output};
pub use super::capture::Capture;
use super::quoting::command_line;
use super::verdict::{Stop, Verdict, is_shortage};
use super::{os_error_text, resource_limits, usage};

/// Number of bytes kept of an output. The rest is read and dropped, so that the process does not
/// block.
const KEPT: usize = 1 << 20;
/// Time limit for a process to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// Number of lines of a log that are shown when its process failed.
const LAST_LINES: usize = 5;
/// The owner of processes that belong to no scenario.
pub const NO_OWNER: usize = usize::MAX;

/// A running or ended child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    #[cfg_attr(not(linux_sys), expect(dead_code, reason = "the end is asked for"))]
    end: imp::End,
    command: String,
    started: Instant,
    stdout: Arc<Capture>,
    stderr: Arc<Capture>,
    log: Option<PathBuf>,
    at_drop: AtDrop,
    exit: Option<Exit>,
}

/// How and when a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// The time at which the end was noticed, a few milliseconds late at most.
    pub at: Instant,
    /// User and system CPU time of the process and of the children that it waited for.
    pub cpu: Duration,
}

/// The standard input of a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `/dev/null`.
    Null,
    /// A pipe, returned by [`Process::take_input`].
    Piped,
    /// As set in the command.
    Given,
}

/// How a process is ended when its handle is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtDrop {
    /// With SIGKILL.
    Kill,
    /// With SIGTERM, and with SIGKILL if it does not end soon.
    Terminate,
}

enum Streams<'a> {
    /// Both outputs are captured, up to this number of bytes each.
    Captured(Input, usize),
    /// As set in the command; stderr is appended to the log if there is one.
    Given(Option<&'a Path>, AtDrop),
}

impl Process {
    /// Starts `command` for the scenario `owner` and captures both outputs. An error of the kind
    /// `ResourceBusy` means that this machine lacks resources.
    pub fn spawn(mut command: Command, owner: usize, input: Input) -> io::Result<Process> {
        Process::start(&mut command, owner, Streams::Captured(input, KEPT))
    }

    /// Starts `command` with its own streams, except that stderr is appended to `log`.
    pub fn spawn_logged(
        mut command: Command,
        log: Option<&Path>,
        at_drop: AtDrop,
    ) -> io::Result<Process> {
        Process::start(&mut command, NO_OWNER, Streams::Given(log, at_drop))
    }

    /// Starts `command`, whose standard input is given, with `spawn`; messages show `line`. Both
    /// outputs are captured.
    #[cfg(linux_sys)]
    pub(crate) fn spawn_as(
        mut command: Command,
        line: String,
        owner: usize,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> io::Result<Process> {
        let streams = Streams::Captured(Input::Given, KEPT);
        Process::start_as(&mut command, line, owner, streams, spawn)
    }

    /// Like [`Process::spawn_as`], but the streams are as set in the command.
    #[cfg(linux_sys)]
    pub(crate) fn spawn_with_pipes(
        mut command: Command,
        line: String,
        owner: usize,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> io::Result<Process> {
        command.process_group(0);
        let streams = Streams::Given(None, AtDrop::Kill);
        Process::start_as(&mut command, line, owner, streams, spawn)
    }

    fn start(command: &mut Command, owner: usize, streams: Streams<'_>) -> io::Result<Process> {
        let line = command_line(command);
        Process::start_as(command, line, owner, streams, |command| command.process_group(0).spawn())
    }

    fn start_as(
        command: &mut Command,
        line: String,
        owner: usize,
        streams: Streams<'_>,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> io::Result<Process> {
        if owner != NO_OWNER {
            command.env(resource_limits::MARK, resource_limits::mark(owner));
        }
        // Set by cargo; it makes every dynamically linked program search there for its libraries.
        command.env_remove("LD_LIBRARY_PATH");
        let (mut log, mut at_drop) = (None, AtDrop::Kill);
        match streams {
            Streams::Captured(input, _) => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                match input {
                    Input::Null => _ = command.stdin(Stdio::null()),
                    Input::Piped => _ = command.stdin(Stdio::piped()),
                    Input::Given => {}
                }
            }
            Streams::Given(path, how) => {
                if let Some(path) = path {
                    command.stderr(File::options().create(true).append(true).open(path)?);
                }
                (log, at_drop) = (path.map(Path::to_owned), how);
            }
        }
        // Keep the lock during the start, so that an interruption finds every group.
        let mut groups = groups();
        // Take the time after the lock: if hundreds of processes start at once, that takes seconds.
        let started = Instant::now();
        let mut child = spawn(command).map_err(|error| {
            let short = is_shortage(&error);
            let kind = if short { io::ErrorKind::ResourceBusy } else { error.kind() };
            io::Error::new(kind, format!("cannot run {line}: {}", os_error_text(&error)))
        })?;
        let pid = Pid::from_child(&child);
        groups.push((pid, owner));
        drop(groups);
        let (stdout, stderr) = match streams {
            Streams::Captured(_, kept) => {
                (Capture::of(child.stdout.take(), kept), Capture::of(child.stderr.take(), kept))
            }
            Streams::Given(..) => (Capture::none(), Capture::none()),
        };
        let end = imp::End::of(pid)?;
        let command = line;
        let exit = None;
        Ok(Process { child, pid, end, command, started, stdout, stderr, log, at_drop, exit })
    }

    /// Returns the command line, for messages.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Returns the time at which it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Returns its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns its captured stdout.
    pub fn stdout(&self) -> &Arc<Capture> {
        &self.stdout
    }

    /// Returns its captured stderr.
    pub fn stderr(&self) -> &Arc<Capture> {
        &self.stderr
    }

    /// Takes its standard input, if it was started with [`Input::Piped`]; dropping it closes the
    /// pipe.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes its standard output, if that is a pipe.
    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes its standard error, if that is a pipe.
    pub fn take_error(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Returns whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        if self.exit.is_none() && self.is_zombie()? {
            self.reap()?;
        }
        Ok(self.exit.is_some())
    }

    /// Returns whether it has ended; unlike [`Process::has_ended`], this works with a shared
    /// reference.
    pub fn is_over(&self) -> io::Result<bool> {
        Ok(self.exit.is_some() || self.is_zombie()?)
    }

    /// Waits until it has ended and its output is complete; returns a fault after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Verdict<Exit> {
        if self.exit.is_none() {
            if wait_any(&[self], limit)?.is_none() {
                return Err(Stop::fault(
                    format!("{} to end within {:.1} s", self.name(), limit.as_secs_f64()),
                    format!("it is still running{}", self.last_lines()),
                ));
            }
            self.reap()?;
        }
        // Its descendants were killed, too, so the pipes close immediately.
        for output in [&self.stdout, &self.stderr] {
            output.wait(Duration::from_secs(5), |_, closed| closed.then_some(()));
        }
        // Set by `has_ended`.
        self.exit.ok_or_else(|| Stop::Trouble("a process ended without a status".into()))
    }

    /// Waits until it has ended. If it failed, the error contains the last lines of its log.
    pub fn finish(&mut self, limit: Duration) -> Verdict<Exit> {
        let exit = self.wait(limit)?;
        if exit.status.success() {
            return Ok(exit);
        }
        let (name, end) = (self.name(), exit.describe());
        Err(Stop::Trouble(format!("{name} failed: {end}{}", self.last_lines())))
    }

    /// Ends it with SIGTERM, or with SIGKILL if it has not ended after three seconds.
    pub fn stop(mut self) -> Verdict<Exit> {
        self.signal_group(Signal::TERM);
        if wait_any(&[&self], GRACE)?.is_none() {
            self.signal_group(Signal::KILL);
        }
        self.wait(GRACE)
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal_group(Signal::KILL);
        if self.exit.is_none() { self.reap() } else { Ok(()) }
    }

    /// Returns the file name of the program.
    pub fn name(&self) -> &str {
        let program = self.command.split_whitespace().next().unwrap_or_default();
        program.rsplit('/').next().unwrap_or_default()
    }

    /// Returns whether it has ended but was not waited for, so that its id and its group id are
    /// still in use.
    fn is_zombie(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(self.pid), options)?.is_some())
    }

    /// Kills the rest of the group, then waits for the process, which frees its id.
    fn reap(&mut self) -> io::Result<()> {
        let at = Instant::now();
        let by_itself = self.is_zombie()?;
        let waited = usage::waited_for_cpu(&usage::tree(self.pid));
        let mut groups = groups();
        let owner = groups.iter().find(|(pid, _)| *pid == self.pid).map(|(_, owner)| *owner);
        // The group may have no other process.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        resource_limits::forget(self.pid);
        // Only one process is reaped at a time, so the difference belongs to it.
        let before = usage::reaped_cpu();
        let status = self.child.wait()?;
        let cpu = usage::reaped_cpu().saturating_sub(before);
        groups.retain(|(pid, _)| *pid != self.pid);
        let exit = Exit { status, at, cpu };
        self.exit = Some(exit);
        if let Some(owner) = owner.filter(|owner| *owner != NO_OWNER) {
            // SIGKILL is how this process ends others.
            let by_itself = by_itself && status.signal() != Some(Signal::KILL.as_raw());
            let end = by_itself.then(|| OwnEnd { pid: self.pid, how: exit.describe() });
            groups::record_end(owner, end, waited);
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let Some(log) = &self.log else { return String::new() };
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        last.iter().map(|line| format!("\n  {line}")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_none() {
            if self.at_drop == AtDrop::Terminate {
                self.signal_group(Signal::TERM);
                // A suspended process handles no signals before SIGCONT.
                self.signal_group(Signal::CONT);
                let _ = wait_any(&[self], GRACE);
            }
            // This kills the group, so the wait is short, except for a process that cannot be
            // killed.
            let _ = self.reap();
        }
    }
}

impl Exit {
    /// Describes the exit: `exit code 0`, `death by signal 9`.
    pub fn describe(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("death by signal {signal}"),
            (None, None) => self.status.to_string(),
        }
    }
}
