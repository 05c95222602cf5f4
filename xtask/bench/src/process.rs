//! Child processes that end with the benchmark, whatever happens, and what they cost.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// What has to go when the benchmark ends early: process groups, then directories.
static CLEANUP: Mutex<Cleanup> =
    Mutex::new(Cleanup { groups: BTreeSet::new(), dirs: BTreeSet::new() });

struct Cleanup {
    groups: BTreeSet<i32>,
    dirs: BTreeSet<PathBuf>,
}

fn cleanup() -> MutexGuard<'static, Cleanup> {
    CLEANUP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a child may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// A child in a process group of its own; dropped, the whole group is killed.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pidfd: OwnedFd,
    what: String,
    log: Option<PathBuf>,
    reaped: bool,
}

/// What became of a child.
#[derive(Debug, Clone)]
pub(super) struct Exit {
    pub(super) status: ExitStatus,
    /// User and system time of the child and of the children it waited for.
    pub(super) cpu: Duration,
    pub(super) at: Instant,
}

impl Running {
    /// Starts `command`; what it prints on stderr goes to `log`, whose end is shown if it fails.
    pub(super) fn spawn(command: &mut Command, what: &str, log: Option<&Path>) -> Result<Self> {
        if let Some(log) = log {
            let file = File::options().create(true).append(true).open(log);
            command.stderr(file.with_context(|| format!("cannot write {}", log.display()))?);
        }
        Self::spawn_with_stderr(command, what, log)
    }

    /// The same, with stderr as `command` has it.
    pub(super) fn spawn_with_stderr(
        command: &mut Command,
        what: &str,
        log: Option<&Path>,
    ) -> Result<Self> {
        // Held over the start, so that an interruption finds every group.
        let mut cleanup = cleanup();
        // cargo's own addition, which has every dynamic program look there in vain for its libraries.
        command.env_remove("LD_LIBRARY_PATH");
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("cannot start {what} ({command:?})"))?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        cleanup.groups.insert(child.id().cast_signed());
        let log = log.map(Path::to_owned);
        Ok(Running { child, pidfd, what: what.to_owned(), log, reaped: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the child, which must succeed.
    pub(super) fn finish(&mut self, limit: Duration) -> Result<Exit> {
        let exit = self.wait(limit)?;
        if exit.status.success() {
            return Ok(exit);
        }
        bail!("{} failed: {}{}", self.what, exit.status, self.last_words());
    }

    /// Waits for the child, however it ends.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<Exit> {
        if wait_any(&[self], limit)?.is_none() {
            bail!("{} is not done after {limit:?}{}", self.what, self.last_words());
        }
        self.reap()
    }

    /// Ends the child by SIGTERM, or by SIGKILL if it does not heed it.
    pub(super) fn stop(mut self) -> Result<Exit> {
        self.signal(Signal::TERM);
        if wait_any(&[&self], GRACE)?.is_none() {
            self.signal(Signal::KILL);
        }
        self.wait(GRACE)
    }

    pub(super) fn signal(&self, signal: Signal) {
        // Gone already is as good.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    fn reap(&mut self) -> Result<Exit> {
        let at = Instant::now();
        // One is reaped at a time, so the difference is this one's.
        let _alone = cleanup();
        let before = reaped_cpu()?;
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(Exit { status, cpu: reaped_cpu()?.saturating_sub(before), at })
    }

    fn last_words(&self) -> String {
        let Some(log) = &self.log else { return String::new() };
        let text = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        if lines.is_empty() { String::new() } else { format!("\n  {}", lines.join("\n  ")) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = self.child.id().cast_signed();
        if self.reaped {
            // The leader is gone; what it left behind may still be there.
            self.signal(Signal::KILL);
        } else {
            self.signal(Signal::TERM);
            // It may have been halted.
            self.signal(Signal::CONT);
            if !matches!(wait_any(&[self], GRACE), Ok(Some(_))) {
                self.signal(Signal::KILL);
            }
            let _ = self.child.wait();
            self.signal(Signal::KILL);
        }
        cleanup().groups.remove(&group);
    }
}

/// Waits until one of the children has ended and says which.
pub(super) fn wait_any(children: &[&Running], limit: Duration) -> Result<Option<usize>> {
    let end = Instant::now() + limit;
    let mut fds: Vec<PollFd<'_>> =
        children.iter().map(|child| PollFd::new(&child.pidfd, PollFlags::IN)).collect();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("a time limit out of range")?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(fds.iter().position(|fd| !fd.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs `command` to its end, which must be a success.
pub(super) fn run(command: &mut Command, what: &str, limit: Duration) -> Result<Exit> {
    Running::spawn_with_stderr(command, what, None)?.finish(limit)
}

/// A directory that is removed at the end, on Ctrl-C too.
#[derive(Debug)]
pub(super) struct WorkDir {
    path: PathBuf,
    keep: bool,
}

impl WorkDir {
    pub(super) fn create(path: PathBuf, keep: bool) -> Result<Self> {
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        if !keep {
            cleanup().dirs.insert(path.clone());
        }
        Ok(WorkDir { path, keep })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.path);
            cleanup().dirs.remove(&self.path);
        }
    }
}

/// Ends everything and the benchmark itself when it is interrupted.
pub(super) fn clean_up_on_signals() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        let Some(signal) = signals.forever().next() else { return };
        let cleanup = cleanup();
        for group in &cleanup.groups {
            if let Some(group) = Pid::from_raw(*group) {
                let _ = kill_process_group(group, Signal::KILL);
            }
        }
        for dir in &cleanup.dirs {
            let _ = std::fs::remove_dir_all(dir);
        }
        std::process::exit(128 + signal);
    });
    Ok(())
}

fn reaped_cpu() -> Result<Duration> {
    Ok(cpu_of(getrusage(UsageWho::RUSAGE_CHILDREN)?))
}

fn cpu_of(usage: Usage) -> Duration {
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(value.tv_sec().unsigned_abs(), 0)
            + Duration::from_micros(value.tv_usec().unsigned_abs())
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Every process below and including `root` that still runs.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            pids.extend(
                children.unwrap_or_default().split_whitespace().flat_map(str::parse::<u32>),
            );
        }
    }
    pids
}

/// User and system time so far of a process, its descendants and those it has waited for.
pub(super) fn tree_cpu(root: u32) -> Duration {
    tree(root).into_iter().map(process_cpu).sum()
}

/// Precise where the threads live on; where some ended, what is known of the process in ticks.
fn process_cpu(pid: u32) -> Duration {
    let mut threads = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let nanos = stat.split_whitespace().next().and_then(|first| first.parse().ok());
        threads += Duration::from_nanos(nanos.unwrap_or(0));
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the numbers follow it.
    let numbers = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let times: Vec<u64> = numbers.split(' ').skip(11).take(4).flat_map(str::parse).collect();
    let [user, system, children_user, children_system] = times[..] else { return threads };
    threads.max(ticks(user + system)) + ticks(children_user + children_system)
}

/// The time that so many of the kernel's clock ticks are.
pub(super) fn ticks(count: u64) -> Duration {
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    Duration::from_secs(count) / per_second.max(1)
}

/// User and system time of this process and of all it waited for.
pub(super) fn own_cpu() -> Duration {
    let own = getrusage(UsageWho::RUSAGE_SELF).map(cpu_of).unwrap_or_default();
    own + reaped_cpu().unwrap_or_default()
}

/// A figure of `/proc/PID/status` in KiB, summed over the process and its descendants.
pub(super) fn tree_memory(root: u32, field: &str) -> u64 {
    tree(root).into_iter().filter_map(|pid| status_kib(pid, field)).sum()
}

fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
