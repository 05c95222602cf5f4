//! Limits for untrusted programs. A thread watches the memory, the number of processes and the
//! output of each process group. Processes that left their group are found by a mark in their
//! environment.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::capture::Capture;
use super::process_table::{
    ProcessStat, group_of, pids, pids_of_user, resident, resident_in, stats,
};

/// The environment variable that marks all processes that a check starts.
pub const MARK: &str = "ACCIO_KIT_CHECK";
/// Interval at which groups are checked.
const INTERVAL: Duration = Duration::from_millis(50);
/// Maximum number of rounds to kill processes that left their group; a process that is forked during
/// a round is found in the next one.
const ROUNDS: usize = 20;

/// Limits of a group of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum resident memory, in KiB.
    pub memory: u64,
    /// Maximum number of processes.
    pub processes: usize,
    /// Maximum size of a file, in bytes.
    pub file: u64,
    /// Maximum output to stdout and stderr, in bytes.
    pub output: u64,
    /// Maximum size of a check's directory, in bytes.
    pub disk: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: 1 << 20, processes: 200, file: 2 << 30, output: 256 << 20, disk: 1 << 30 }
    }
}

struct WatchedGroup {
    group: Pid,
    owner: usize,
    limits: Limits,
    outputs: [Arc<Capture>; 2],
    counted: Counted,
    /// The directory whose size is to be watched.
    dir: Option<PathBuf>,
}

/// The processes whose memory and number are limited.
#[cfg_attr(not(linux_sys), expect(dead_code, reason = "only sandboxes count other processes"))]
pub(crate) enum Counted {
    /// Those of the process group.
    Group,
    /// Those of a PID namespace, given by its process table, and what kills them.
    Inside(OwnedFd, Box<dyn Fn() + Send>),
    /// Those of a user.
    User(u32),
}

static WATCHED: Mutex<Vec<WatchedGroup>> = Mutex::new(Vec::new());
/// Groups to be watched from the next check. A new program must not wait while others are checked.
static NEW: Mutex<Vec<WatchedGroup>> = Mutex::new(Vec::new());
static ENDED: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

/// Returns the mark of `owner`'s processes, which is unique to this run.
pub fn mark(owner: usize) -> String {
    static RUN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let run = RUN.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", std::process::id(), now.as_nanos())
    });
    format!("{run}-{owner}.")
}

/// Enforces `limits` on the process group `group` and its outputs.
pub fn watch(group: Pid, outputs: [Arc<Capture>; 2], owner: usize, limits: Limits) {
    let files = Rlimit { current: Some(limits.file), maximum: Some(limits.file) };
    // The process may have ended already.
    let _ = prlimit(group, Resource::Fsize, files);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = prlimit(group, Resource::Core, none);
    // The watching thread may be too late: no process may exceed the memory limit by far, and if
    // memory runs out nevertheless, the kernel kills this process first.
    let most = Some(limits.memory.saturating_mul(4 << 10));
    let data = Rlimit { current: most, maximum: most };
    let _ = prlimit(group, Resource::Data, data);
    let _ = fs::write(format!("/proc/{}/oom_score_adj", group.as_raw_nonzero()), "1000");
    let (counted, dir) = (Counted::Group, None);
    start_watching(WatchedGroup { group, owner, limits, outputs, counted, dir });
}

/// Enforces `limits` on a process group of a sandbox, on the processes in `counted`, and on the size
/// of `dir` if that is given.
#[cfg(linux_sys)]
pub(crate) fn watch_sandbox(
    group: Pid,
    outputs: [Arc<Capture>; 2],
    owner: usize,
    limits: Limits,
    counted: Counted,
    dir: Option<PathBuf>,
) {
    start_watching(WatchedGroup { group, owner, limits, outputs, counted, dir });
}

/// Sets a limit of another process.
#[cfg(linux_sys)]
pub(crate) fn prlimit(pid: Pid, resource: Resource, limit: Rlimit) -> io::Result<()> {
    rustix::process::prlimit(Some(pid), resource, limit)?;
    Ok(())
}

/// Fails: only Linux can set a limit of another process.
#[cfg(not(linux_sys))]
pub(crate) fn prlimit(_: Pid, _: Resource, _: Rlimit) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn start_watching(group: WatchedGroup) {
    lock(&NEW).push(group);
    WATCH.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(INTERVAL);
                check_limits();
            }
        });
    });
}

/// Raises the descriptor limit of this process to `wanted`, or as far as the system allows, and
/// returns the limit: `None` for no limit.
pub fn raise_descriptor_limit(wanted: Option<u64>) -> io::Result<Option<u64>> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = match (wanted, limit.maximum) {
        (Some(wanted), Some(maximum)) => Some(wanted.min(maximum)),
        (wanted, maximum) => wanted.or(maximum),
    };
    if wanted.is_none_or(|wanted| limit.current.is_some_and(|current| current < wanted)) {
        let raised = Rlimit { current: wanted, maximum: limit.maximum };
        rustix::process::setrlimit(Resource::Nofile, raised)?;
        return Ok(wanted);
    }
    Ok(limit.current)
}

/// Stops watching `group`; must be called before the group id can be reused.
pub fn forget(group: Pid) {
    lock(&NEW).retain(|one| one.group != group);
    lock(&WATCHED).retain(|one| one.group != group);
}

/// Returns the reasons for which processes of `owner` were killed.
pub fn reasons(owner: usize) -> Vec<String> {
    let ended = lock(&ENDED);
    ended.iter().filter(|(of, _)| *of == owner).map(|(_, why)| why.clone()).collect()
}

/// Kills every process with the mark of `owner`, whatever its group. It skips the groups in
/// `others`, which have another owner, because reading the environment of hundreds of processes
/// takes long.
pub fn sweep(owner: usize, others: &HashSet<Pid>) {
    let mark = format!("{MARK}={}", mark(owner));
    for _ in 0..ROUNDS {
        let mut found = false;
        for pid in pids().filter(|pid| group_of(*pid).is_none_or(|one| !others.contains(&one))) {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let marked = environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes());
            if let (true, Some(pid)) = (marked, Pid::from_raw(pid)) {
                found = true;
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if !found {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills all processes of a user that no process but those of one check has.
pub(crate) fn kill_all_of_user(uid: u32) {
    for _ in 0..ROUNDS {
        let mut found = false;
        for pid in pids_of_user(uid).filter_map(Pid::from_raw) {
            found = true;
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        if !found {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the number of a check's processes and their resident pages.
fn count(one: &WatchedGroup, stats: &[ProcessStat]) -> (usize, u64) {
    let sum = |pages: Vec<u64>| (pages.len(), pages.into_iter().sum());
    match &one.counted {
        Counted::Group => {
            let members = stats.iter().filter(|stat| stat.group == one.group);
            sum(members.map(|stat| stat.resident).collect())
        }
        Counted::Inside(table, _) => {
            // The first process belongs to the sandbox.
            sum(resident_in(table)
                .into_iter()
                .filter(|(pid, _)| *pid != 1)
                .map(|one| one.1)
                .collect())
        }
        Counted::User(uid) => {
            let pids = pids_of_user(*uid);
            sum(pids.map(|pid| resident(Path::new(&format!("/proc/{pid}")))).collect())
        }
    }
}

/// Returns the size of the files in a directory.
fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        // A block has 512 bytes.
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn check_limits() {
    let groups: HashSet<Pid> = {
        let watched = lock(&WATCHED);
        let by_group = watched.iter().filter(|one| matches!(one.counted, Counted::Group));
        by_group.map(|one| one.group).collect()
    };
    let stats = if groups.is_empty() { Vec::new() } else { stats(&groups) };
    let page = rustix::param::page_size() as u64 >> 10;
    // Keep the lock during the kill: `forget` is called before the group id can be reused.
    let mut watched = lock(&WATCHED);
    watched.append(&mut lock(&NEW));
    watched.retain(|one| {
        let (count, pages) = count(one, &stats);
        let resident = pages * page;
        let stored = one.dir.as_deref().map_or(0, size_of);
        let written: u64 = one.outputs.iter().map(|output| output.length()).sum();
        let why = if resident > one.limits.memory {
            format!("more than {} MiB of memory", one.limits.memory >> 10)
        } else if count > one.limits.processes {
            format!("more than {} processes", one.limits.processes)
        } else if written > one.limits.output {
            format!("more than {} MiB of output", one.limits.output >> 20)
        } else if stored > one.limits.disk {
            format!("more than {} MiB of files", one.limits.disk >> 20)
        } else {
            return true;
        };
        let _ = rustix::process::kill_process_group(one.group, Signal::KILL);
        match &one.counted {
            Counted::Group => {}
            Counted::Inside(_, kill_all) => kill_all(),
            Counted::User(uid) => kill_all_of_user(*uid),
        }
        lock(&ENDED).push((one.owner, why));
        false
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
