//! Limits for untrusted programs. A thread watches the memory, the number of processes and the
//! output of each process group. Processes that left their group are found by a mark in their
//! environment.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::capture::Capture;
use super::usage;

/// The environment variable that marks all processes that a check starts.
pub const MARK: &str = "ACCIO_KIT_CHECK";
/// Interval at which groups are checked.
const INTERVAL: Duration = Duration::from_millis(50);
/// Number of consecutive checks without a runnable thread after which a group is idle.
const RESTS: u32 = 3;
/// Maximum number of rounds to kill processes that left their group; a process that forks meanwhile
/// is found in the next round.
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
pub(crate) enum Counted {
    /// Those of the process group.
    Group,
    /// Those of a PID namespace, given by its process table, and what kills them.
    Inside(PathBuf, Box<dyn Fn() + Send>),
    /// Those of a user.
    User(u32),
}

static WATCHED: Mutex<Vec<WatchedGroup>> = Mutex::new(Vec::new());
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
#[cfg(target_os = "linux")]
pub(crate) fn prlimit(pid: Pid, resource: Resource, limit: Rlimit) -> io::Result<()> {
    rustix::process::prlimit(Some(pid), resource, limit)?;
    Ok(())
}

/// Fails: only Linux can set a limit of another process.
#[cfg(not(target_os = "linux"))]
pub(crate) fn prlimit(_: Pid, _: Resource, _: Rlimit) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn start_watching(group: WatchedGroup) {
    lock(&WATCHED).push(group);
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
/// returns the limit, which is `None` if there is none.
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

/// Returns the children of this process.
pub(crate) fn children() -> Vec<Pid> {
    let own = std::process::id();
    let is_child = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = text.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        parent.is_some_and(|parent| parent.parse() == Ok(own))
    };
    pids().filter(is_child).filter_map(Pid::from_raw).collect()
}

/// Returns the processes in the group `group`.
pub fn members(group: Pid) -> Vec<i32> {
    pids().filter(|pid| group_of(*pid) == Some(group)).collect()
}

/// Returns the sum of the peak resident memory of the group's processes, in KiB.
pub fn peak_memory(group: Pid) -> u64 {
    let peak = |pid: i32| usage::status_kib(Pid::from_raw(pid)?, "VmHWM");
    members(group).into_iter().filter_map(peak).sum()
}

/// Returns the CPU time of the group, in clock ticks.
pub fn cpu_ticks(group: Pid) -> u64 {
    stats(&HashSet::from([group])).into_iter().map(|stat| stat.ticks).sum()
}

/// Whether any thread of the group is running, or waits for a CPU or the disk.
pub fn wants_to_run(group: Pid) -> bool {
    members(group).into_iter().any(is_runnable)
}

/// Returns those of the groups that want to run.
pub(crate) fn runnable(groups: &HashSet<Pid>) -> HashSet<Pid> {
    if groups.is_empty() {
        return HashSet::new();
    }
    let members = pids().filter_map(|pid| Some((pid, group_of(pid)?)));
    let members = members.filter(|(_, group)| groups.contains(group));
    members.filter(|(pid, _)| is_runnable(*pid)).map(|(_, group)| group).collect()
}

fn is_runnable(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['R', 'D']))
    })
}

/// Waits until the group is idle, for at most `limit`, and returns whether it is.
pub fn settles(group: Pid, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let mut rested = 0;
    while Instant::now() < until {
        // Check several times, because a busy program may sleep for a moment.
        rested = if wants_to_run(group) { 0 } else { rested + 1 };
        if rested == RESTS {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

struct ProcessStat {
    group: Pid,
    ticks: u64,
    /// Number of resident pages.
    resident: u64,
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

fn pids_of_user(uid: u32) -> impl Iterator<Item = i32> {
    pids().filter(move |pid| {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|metadata| metadata.uid() == uid)
    })
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
            let inside = numbers_in(table).filter(|pid| *pid != 1);
            sum(inside.map(|pid| resident(&table.join(pid.to_string()))).collect())
        }
        Counted::User(uid) => {
            let pids = pids_of_user(*uid);
            sum(pids.map(|pid| resident(Path::new(&format!("/proc/{pid}")))).collect())
        }
    }
}

/// Returns the number of resident pages of the process with this directory.
fn resident(process: &Path) -> u64 {
    let text = fs::read_to_string(process.join("statm")).unwrap_or_default();
    text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
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

/// Reads `/proc/PID/stat` of the processes in these groups.
fn stats(groups: &HashSet<Pid>) -> Vec<ProcessStat> {
    let stat = |pid: i32| -> Option<ProcessStat> {
        let group = group_of(pid).filter(|group| groups.contains(group))?;
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name may contain any character. The fields follow it; the first is the state.
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(ProcessStat { group, ticks: number(11)? + number(12)?, resident: number(21)? })
    };
    pids().filter_map(stat).collect()
}

/// Returns the group of a process; this is much cheaper than reading its files.
fn group_of(pid: i32) -> Option<Pid> {
    // Not with rustix, which panics for a group outside our PID namespace: its id is 0.
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok()?;
    Pid::from_raw(group.as_raw())
}

fn pids() -> impl Iterator<Item = i32> {
    numbers_in(Path::new("/proc"))
}

fn numbers_in(table: &Path) -> impl Iterator<Item = i32> + use<> {
    let entries = fs::read_dir(table).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
