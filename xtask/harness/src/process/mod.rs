//! Child processes: each in a process group of its own, their output captured up to a cap, every
//! wait bounded, the whole group ended when the handle goes.

mod capture;
mod groups;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

pub use self::capture::Capture;
use self::groups::groups;
pub use self::groups::{end_all_of, kill_all_groups, while_none_starts};
use super::resource_limits;
use super::verdict::{Stop, Verdict, is_shortage};

/// How often a process is asked whether it has ended.
const POLL: Duration = Duration::from_millis(4);

/// A running or ended child process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    command: String,
    started: Instant,
    stdout: Arc<Capture>,
    stderr: Arc<Capture>,
    exit: Option<Exit>,
}

/// How and when a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// When we noticed, a few milliseconds after the fact at most.
    pub at: Instant,
}

/// Where a child's standard input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing, at once.
    Null,
    /// What is written to [`Process::take_input`].
    Piped,
}

impl Process {
    /// Starts `command` in a new process group on behalf of the scenario `owner`. An error of the
    /// kind `ResourceBusy` is for want of something of this machine's.
    pub fn spawn(mut command: Command, owner: usize, input: Input) -> io::Result<Process> {
        let line = command_line(&command);
        command.env(resource_limits::MARK, resource_limits::mark(owner));
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input == Input::Null { Stdio::null() } else { Stdio::piped() });
        // Held over the start, so that an interruption finds every group that there is.
        let mut groups = groups();
        // Not before: where hundreds are to start, this one has waited for seconds by now.
        let started = Instant::now();
        let mut child = command.spawn().map_err(|error| {
            let short = is_shortage(&error);
            let kind = if short { io::ErrorKind::ResourceBusy } else { error.kind() };
            io::Error::new(kind, format!("cannot run {line}: {error}"))
        })?;
        let pid = Pid::from_child(&child);
        groups.push((pid, owner));
        drop(groups);
        let stdout = Capture::of(child.stdout.take());
        let stderr = Capture::of(child.stderr.take());
        Ok(Process { child, pid, command: line, started, stdout, stderr, exit: None })
    }

    /// The command line, for people.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// What it has written to stdout.
    pub fn stdout(&self) -> &Arc<Capture> {
        &self.stdout
    }

    /// What it has written to stderr.
    pub fn stderr(&self) -> &Arc<Capture> {
        &self.stderr
    }

    /// Its standard input, if it was started with [`Input::Piped`]; dropping that closes it.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends it a signal; it alone, as a shell's `kill` would.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.pid, signal)?)
    }

    /// Stops all of it, as a machine that sleeps does; [`Signal::CONT`] wakes it.
    pub fn pause(&self) -> Verdict {
        self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let until = Instant::now() + Duration::from_secs(5);
        // Told once its last thread has stopped: from then on it takes nothing in.
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

    /// The same, of one that is only looked at.
    pub fn is_over(&self) -> io::Result<bool> {
        Ok(self.exit.is_some() || self.is_zombie()?)
    }

    /// Waits until it has ended and all its output is here; a fault after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Verdict<Exit> {
        let until = Instant::now() + limit;
        while !self.has_ended()? {
            if Instant::now() >= until {
                return Err(Stop::fault(
                    format!("{} to end within {:.1} s", self.name(), limit.as_secs_f64()),
                    "it still runs",
                ));
            }
            thread::sleep(POLL);
        }
        // Its descendants are ended with it, so the pipes close at once.
        for output in [&self.stdout, &self.stderr] {
            output.wait(Duration::from_secs(5), |_, closed| closed.then_some(()));
        }
        // Set by `has_ended`.
        self.exit.ok_or_else(|| Stop::Trouble("a process ended without a status".into()))
    }

    /// The last part of the program's path.
    pub fn name(&self) -> &str {
        let program = self.command.split_whitespace().next().unwrap_or_default();
        program.rsplit('/').next().unwrap_or_default()
    }

    /// The processor time it has used, in clock ticks (Linux: 100 a second).
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

    /// The most memory it ever had resident, in KiB.
    pub fn peak_memory(&self) -> Verdict<u64> {
        let status = self.proc_file("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok())
            .ok_or_else(|| Stop::skip("no VmHWM in /proc/PID/status"))
    }

    /// How many descriptors it has open.
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

    /// Whether it has ended but still holds its number, and with it that of its group.
    fn is_zombie(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(rustix::process::waitid(WaitId::Pid(self.pid), options)?.is_some())
    }

    /// Ends what is left of the group, then lets its number go.
    fn reap(&mut self) -> io::Result<()> {
        let at = Instant::now();
        let mut groups = groups();
        // No such group: nothing is left of it.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        resource_limits::forget(self.pid);
        let status = self.child.wait()?;
        groups.retain(|(pid, _)| *pid != self.pid);
        self.exit = Some(Exit { status, at });
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // Killed as a group; only an unkillable process could keep us waiting.
            let _ = self.reap();
        }
    }
}

impl Exit {
    /// For people: `exit code 0`, `signal 9`.
    pub fn describe(&self) -> String {
        use std::os::unix::process::ExitStatusExt;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("death by signal {signal}"),
            (None, None) => self.status.to_string(),
        }
    }
}

/// The command as one would type it.
fn command_line(command: &Command) -> String {
    let mut line = String::new();
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        if !line.is_empty() {
            line.push(' ');
        }
        if !word.is_empty() && word.chars().all(plain) {
            line.push_str(&word);
        } else {
            line.push_str(&format!("'{}'", word.replace('\'', "'\\''")));
        }
    }
    line
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
            // Killed, it may stay a zombie until whoever adopted it looks.
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
