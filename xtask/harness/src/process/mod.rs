//! Child processes: each in a process group of its own, every wait bounded, the whole group ended
//! when the handle is dropped or the run is interrupted. Nothing else starts one.

mod groups;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use self::groups::groups;
pub use self::groups::{end_all_of, kill_all_groups, while_none_starts};
pub use super::capture::Capture;
use super::quoting::command_line;
use super::verdict::{Stop, Verdict, is_shortage};
use super::{resource_limits, usage};

/// How often to check whether a process has stopped.
const POLL: Duration = Duration::from_millis(4);
/// Bytes kept of an output; the rest is read and dropped, so that the process does not block.
const KEPT: usize = 1 << 20;
/// How long a process may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// Lines of a log shown when its process failed.
const LAST_LINES: usize = 5;
/// The owner of processes that belong to no scenario.
const NO_OWNER: usize = usize::MAX;

/// A running or ended child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
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
    /// When the end was noticed, a few milliseconds late at most.
    pub at: Instant,
    /// User and system time of the process and of the children it waited for.
    pub cpu: Duration,
}

/// Where a child's standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// `/dev/null`.
    Null,
    /// The pipe of [`Process::take_input`].
    Piped,
}

/// How a process is ended when its handle is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtDrop {
    /// By SIGKILL.
    Kill,
    /// By SIGTERM, and by SIGKILL if it does not end soon.
    Terminate,
}

/// The whole output of a process that has ended.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// All that it wrote to stdout.
    pub stdout: Vec<u8>,
    /// All that it wrote to stderr.
    pub stderr: Vec<u8>,
}

enum Streams<'a> {
    /// Both outputs are captured, this many bytes of each.
    Captured(Input, usize),
    /// As the command says; stderr is appended to the log if there is one.
    Given(Option<&'a Path>, AtDrop),
}

/// Runs a command to its end with `input` and returns its output, all of it. An error if it does not
/// end within `limit`.
pub fn output(command: Command, input: &[u8], limit: Duration) -> Verdict<Output> {
    let mut process =
        Process::start(command, NO_OWNER, Streams::Captured(Input::Piped, usize::MAX))?;
    if let Some(mut stdin) = process.take_input() {
        // A command that ends early says why.
        let _ = stdin.write_all(input);
    }
    let exit = process.wait(limit).map_err(Stop::into_trouble)?;
    let (stdout, stderr) = (process.stdout.bytes(), process.stderr.bytes());
    Ok(Output { status: exit.status, stdout, stderr })
}

/// Runs a command to its end, which must be a success; what it wrote to stdout. The error is what it
/// wrote to stderr.
pub fn checked_output(command: Command, input: &[u8], limit: Duration) -> Verdict<Vec<u8>> {
    let name = Path::new(command.get_program()).to_string_lossy().into_owned();
    let output = output(command, input, limit)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
    Err(Stop::Trouble(format!("{name}: {text}")))
}

/// Runs a command to its end in this process's own group, so that a terminal's Ctrl-C reaches it.
pub fn foreground(command: &mut Command) -> io::Result<ExitStatus> {
    command.status()
}

/// Waits until one of the processes has ended and says which; `None` after `limit`.
pub fn wait_any(processes: &[&Process], limit: Duration) -> io::Result<Option<usize>> {
    let end = Instant::now() + limit;
    let mut fds: Vec<PollFd<'_>> =
        processes.iter().map(|process| PollFd::new(&process.pidfd, PollFlags::IN)).collect();
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

impl Process {
    /// Starts `command` on behalf of the scenario `owner` and captures both outputs. An error of the
    /// kind `ResourceBusy` means that this machine is short of something.
    pub fn spawn(command: Command, owner: usize, input: Input) -> io::Result<Process> {
        Process::start(command, owner, Streams::Captured(input, KEPT))
    }

    /// Starts `command` with the streams it was given, but for stderr, which is appended to `log`.
    pub fn spawn_logged(
        command: Command,
        log: Option<&Path>,
        at_drop: AtDrop,
    ) -> io::Result<Process> {
        Process::start(command, NO_OWNER, Streams::Given(log, at_drop))
    }

    fn start(mut command: Command, owner: usize, streams: Streams<'_>) -> io::Result<Process> {
        let line = command_line(&command);
        if owner != NO_OWNER {
            command.env(resource_limits::MARK, resource_limits::mark(owner));
        }
        // Cargo's addition, which makes every dynamic program look there for its libraries.
        command.env_remove("LD_LIBRARY_PATH");
        let (mut log, mut at_drop) = (None, AtDrop::Kill);
        match streams {
            Streams::Captured(input, _) => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
                command.stdin(if input == Input::Null { Stdio::null() } else { Stdio::piped() });
            }
            Streams::Given(path, how) => {
                if let Some(path) = path {
                    command.stderr(File::options().create(true).append(true).open(path)?);
                }
                (log, at_drop) = (path.map(Path::to_owned), how);
            }
        }
        // Held over the start, so that an interruption finds every group that there is.
        let mut groups = groups();
        // Not before: where hundreds are to start, this one has waited for seconds by now.
        let started = Instant::now();
        let mut child = command.process_group(0).spawn().map_err(|error| {
            let short = is_shortage(&error);
            let kind = if short { io::ErrorKind::ResourceBusy } else { error.kind() };
            io::Error::new(kind, format!("cannot run {line}: {error}"))
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
        // A child that has not been waited for keeps its number.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        let command = line;
        let exit = None;
        Ok(Process { child, pid, pidfd, command, started, stdout, stderr, log, at_drop, exit })
    }

    /// Returns the command line, for messages.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Returns the time of its start.
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

    /// Takes its standard input, if it was started with [`Input::Piped`]; dropping that closes it.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Takes its standard output, if the command has it piped.
    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes its standard error, if the command has it piped.
    pub fn take_error(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Sends a signal to its whole group.
    pub fn signal_group(&self, signal: Signal) {
        // No such group: it has ended already.
        let _ = rustix::process::kill_process_group(self.pid, signal);
    }

    /// Sends a signal to the process alone, as a shell's `kill` would.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid, signal)?)
    }

    /// Suspends all its threads; [`Signal::CONT`] resumes them.
    pub fn pause(&self) -> Verdict {
        self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let until = Instant::now() + Duration::from_secs(5);
        // Reported once its last thread has stopped: from then on it reads nothing.
        while rustix::process::waitid(WaitId::Pid(self.pid), options)?.is_none() {
            if Instant::now() >= until {
                return Err(Stop::Trouble(format!("{} does not stop", self.name())));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        if self.exit.is_none() && self.is_zombie()? {
            self.reap()?;
        }
        Ok(self.exit.is_some())
    }

    /// Whether it has ended, for a handle that cannot wait for it.
    pub fn is_over(&self) -> io::Result<bool> {
        Ok(self.exit.is_some() || self.is_zombie()?)
    }

    /// Waits until it has ended and all its output is here; a fault after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Verdict<Exit> {
        if self.exit.is_none() {
            if wait_any(&[self], limit)?.is_none() {
                return Err(Stop::fault(
                    format!("{} to end within {:.1} s", self.name(), limit.as_secs_f64()),
                    format!("it still runs{}", self.last_words()),
                ));
            }
            self.reap()?;
        }
        // Its descendants are ended with it, so the pipes close at once.
        for output in [&self.stdout, &self.stderr] {
            output.wait(Duration::from_secs(5), |_, closed| closed.then_some(()));
        }
        // Set by `has_ended`.
        self.exit.ok_or_else(|| Stop::Trouble("a process ended without a status".into()))
    }

    /// Waits until it has ended, which must be a success; the error has the end of its log.
    pub fn finish(&mut self, limit: Duration) -> Verdict<Exit> {
        let exit = self.wait(limit)?;
        if exit.status.success() {
            return Ok(exit);
        }
        let (name, end) = (self.name(), exit.describe());
        Err(Stop::Trouble(format!("{name} failed: {end}{}", self.last_words())))
    }

    /// Ends it by SIGTERM, or by SIGKILL if it has not ended after three seconds.
    pub fn stop(mut self) -> Verdict<Exit> {
        self.signal_group(Signal::TERM);
        if wait_any(&[&self], GRACE)?.is_none() {
            self.signal_group(Signal::KILL);
        }
        self.wait(GRACE)
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal_group(Signal::KILL);
        if self.exit.is_none() { self.reap() } else { Ok(()) }
    }

    /// Returns the last part of the program's path.
    pub fn name(&self) -> &str {
        let program = self.command.split_whitespace().next().unwrap_or_default();
        program.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the processor time it has used, in clock ticks (Linux: 100 a second).
    pub fn cpu_ticks(&self) -> Verdict<u64> {
        let stat = self.proc_file("stat")?;
        // The fields after the command's name, which may hold anything: state is the first.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
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

    /// Returns the number of its open descriptors.
    pub fn descriptors(&self) -> Verdict<usize> {
        match fs::read_dir(format!("/proc/{}/fd", self.pid.as_raw_nonzero())) {
            Ok(entries) => Ok(entries.count()),
            Err(error) => Err(Stop::skip(format!("cannot list descriptors: {error}"))),
        }
    }

    fn proc_file(&self, name: &str) -> Verdict<String> {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid.as_raw_nonzero()))
            .map_err(|error| Stop::skip(format!("cannot read /proc/PID/{name}: {error}")))
    }

    /// Whether it has ended but keeps its number, and with it that of its group.
    fn is_zombie(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(self.pid), options)?.is_some())
    }

    /// Kills the rest of the group, then waits for the process, which frees its number.
    fn reap(&mut self) -> io::Result<()> {
        let at = Instant::now();
        let mut groups = groups();
        // No such group: nothing is left of it.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        resource_limits::forget(self.pid);
        // One is reaped at a time, so the difference is this one's.
        let before = usage::reaped_cpu();
        let status = self.child.wait()?;
        let cpu = usage::reaped_cpu().saturating_sub(before);
        groups.retain(|(pid, _)| *pid != self.pid);
        self.exit = Some(Exit { status, at, cpu });
        Ok(())
    }

    fn last_words(&self) -> String {
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
                // It may have been stopped.
                self.signal_group(Signal::CONT);
                let _ = wait_any(&[self], GRACE);
            }
            // Killed as a group; only an unkillable process could keep us waiting.
            let _ = self.reap();
        }
    }
}

impl Exit {
    /// Describes the exit: `exit code 0`, `death by signal 9`.
    pub fn describe(&self) -> String {
        use std::os::unix::process::ExitStatusExt;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("death by signal {signal}"),
            (None, None) => self.status.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(command, usize::MAX, Input::Null).unwrap()
    }

    #[test]
    fn output_and_status_are_seen() {
        let mut process = shell("echo out; echo err >&2; exit 3");
        let exit = process.wait(Duration::from_secs(10)).unwrap();
        assert_eq!(exit.status.code(), Some(3));
        assert_eq!(process.stdout().text(), "out\n");
        assert_eq!(process.stderr().text(), "err\n");
        assert_eq!(process.command(), "sh -c 'echo out; echo err >&2; exit 3'");
    }

    #[test]
    fn a_flood_is_capped_and_does_not_block_the_process() {
        let mut process = shell("head -c 3000000 /dev/zero");
        process.wait(Duration::from_secs(10)).unwrap();
        assert!(process.stdout().text().ends_with("… and 1951424 bytes more"));
    }

    #[test]
    fn a_wait_is_bounded_and_descendants_end_with_the_handle() {
        let mut process = shell("sleep 1000 & echo $!; wait");
        let descendant: i32 =
            process.stdout().line(0, Duration::from_secs(5)).unwrap().parse().unwrap();
        let Err(Stop::Fault(fault)) = process.wait(Duration::from_millis(50)) else {
            panic!("it cannot have ended")
        };
        assert_eq!(fault.expected, "sh to end within 0.1 s");
        drop(process);
        let pid = Pid::from_raw(descendant).unwrap();
        let gone = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(10));
            // Killed, it may stay a zombie until its new parent waits for it.
            rustix::process::test_kill_process(pid).is_err()
                || fs::read_to_string(format!("/proc/{descendant}/stat"))
                    .is_ok_and(|stat| stat.contains(") Z "))
        });
        assert!(gone);
    }

    #[test]
    fn lines_are_waited_for() {
        let process = shell("printf 'a\\nb'; sleep 0.1; printf 'c\\n'; sleep 100");
        assert_eq!(process.stdout().line(1, Duration::from_secs(5)).as_deref(), Some("bc"));
        assert_eq!(process.stdout().line(2, Duration::from_millis(20)), None);
    }
}
