//! Limits for untrusted programs: a thread watches the memory, the number of processes and the output
//! of a whole group, and finds processes that left the group by a mark in their environment.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::capture::Capture;
use super::usage;

/// The variable that marks everything a check starts.
pub const MARK: &str = "ACCIO_KIT_CHECK";
/// How often groups are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Looks in a row that find a group at rest.
const RESTS: u32 = 3;
/// Rounds of ending processes that left the group: one that forks is found in the next round.
const ROUNDS: usize = 20;

/// Limits of a group of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Resident memory, in KiB.
    pub memory: u64,
    /// Processes.
    pub processes: usize,
    /// The largest file, in bytes.
    pub file: u64,
    /// Output to stdout and stderr, in bytes.
    pub output: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: 1 << 20, processes: 200, file: 2 << 30, output: 256 << 20 }
    }
}

struct Watched {
    group: Pid,
    owner: usize,
    limits: Limits,
    outputs: [Arc<Capture>; 2],
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());
static ENDED: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
static WATCH: Once = Once::new();

/// Returns the mark of `owner`'s processes, which no other run has.
pub fn mark(owner: usize) -> String {
    static RUN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let run = RUN.get_or_init(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", std::process::id(), now.as_nanos())
    });
    format!("{run}-{owner}.")
}

/// Holds the process group `group` with these outputs to `limits` from now on.
pub fn watch(group: Pid, outputs: [Arc<Capture>; 2], owner: usize, limits: Limits) {
    let files = Rlimit { current: Some(limits.file), maximum: Some(limits.file) };
    // It may have ended by now, or the file system's own limits do.
    let _ = rustix::process::prlimit(Some(group), Resource::Fsize, files);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::prlimit(Some(group), Resource::Core, none);
    // Where looking comes too late: no process far beyond the limit, and when memory runs out all
    // the same, the kernel ends this process first.
    let most = Some(limits.memory.saturating_mul(4 << 10));
    let data = Rlimit { current: most, maximum: most };
    let _ = rustix::process::prlimit(Some(group), Resource::Data, data);
    let _ = fs::write(format!("/proc/{}/oom_score_adj", group.as_raw_nonzero()), "1000");
    lock(&WATCHED).push(Watched { group, owner, limits, outputs });
    WATCH.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(LOOK);
                look();
            }
        });
    });
}

/// Raises this process's own descriptor limit to `wanted`, or as far as the system allows.
pub fn raise_descriptor_limit(wanted: Option<u64>) -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = match (wanted, limit.maximum) {
        (Some(wanted), Some(maximum)) => Some(wanted.min(maximum)),
        (wanted, maximum) => wanted.or(maximum),
    };
    if wanted.is_none_or(|wanted| limit.current.is_some_and(|current| current < wanted)) {
        let raised = Rlimit { current: wanted, maximum: limit.maximum };
        rustix::process::setrlimit(Resource::Nofile, raised)?;
    }
    Ok(())
}

/// Stops watching `group`; must be called before its number is free.
pub fn forget(group: Pid) {
    lock(&WATCHED).retain(|one| one.group != group);
}

/// Returns why processes of `owner` were ended.
pub fn reasons(owner: usize) -> Vec<String> {
    let ended = lock(&ENDED);
    ended.iter().filter(|(of, _)| *of == owner).map(|(_, why)| why.clone()).collect()
}

/// Ends every process marked by `owner`, in any group. Those in one of `others` are
/// known to belong to others: reading the environments of hundreds of processes takes long.
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

/// Returns the processes in the group `group`.
pub fn members(group: Pid) -> Vec<i32> {
    pids().filter(|pid| group_of(*pid) == Some(group)).collect()
}

/// Returns the sum of the group's peak resident memory, in KiB.
pub fn peak_memory(group: Pid) -> u64 {
    let peak = |pid: i32| usage::status_kib(Pid::from_raw(pid)?, "VmHWM");
    members(group).into_iter().filter_map(peak).sum()
}

/// Returns the processor time of the group, in clock ticks.
pub fn cpu_ticks(group: Pid) -> u64 {
    stats(&HashSet::from([group])).into_iter().map(|stat| stat.ticks).sum()
}

/// Whether any thread of the group runs, or would if a processor or the disk were free.
pub fn wants_to_run(group: Pid) -> bool {
    members(group).into_iter().any(|pid| {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads.into_iter().any(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['R', 'D']))
        })
    })
}

/// Waits until no thread of the group wants to run, at most for `limit`. Returns whether the group
/// has come to rest.
pub fn settles(group: Pid, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    let mut rested = 0;
    while Instant::now() < until {
        // Once is not enough: it may sleep between two things it does.
        rested = if wants_to_run(group) { 0 } else { rested + 1 };
        if rested == RESTS {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

struct Stat {
    group: Pid,
    ticks: u64,
    /// Resident pages.
    resident: u64,
}

fn look() {
    let groups: HashSet<Pid> = lock(&WATCHED).iter().map(|one| one.group).collect();
    if groups.is_empty() {
        return;
    }
    let stats = stats(&groups);
    let page = rustix::param::page_size() as u64 >> 10;
    // Held over the kill: a group is forgotten before its number is free for others.
    let mut watched = lock(&WATCHED);
    watched.retain(|one| {
        let members = stats.iter().filter(|stat| stat.group == one.group);
        let count = members.clone().count();
        let resident: u64 = members.map(|stat| stat.resident * page).sum();
        let written: u64 = one.outputs.iter().map(|output| output.length()).sum();
        let why = if resident > one.limits.memory {
            format!("more than {} MiB of memory", one.limits.memory >> 10)
        } else if count > one.limits.processes {
            format!("more than {} processes", one.limits.processes)
        } else if written > one.limits.output {
            format!("more than {} MiB of output", one.limits.output >> 20)
        } else {
            return true;
        };
        let _ = rustix::process::kill_process_group(one.group, Signal::KILL);
        lock(&ENDED).push((one.owner, why));
        false
    });
}

/// Returns the figures of the processes in these groups.
fn stats(groups: &HashSet<Pid>) -> Vec<Stat> {
    let stat = |pid: i32| -> Option<Stat> {
        let group = group_of(pid).filter(|group| groups.contains(group))?;
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The fields after the command's name, which may hold anything: state is the first.
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Stat { group, ticks: number(11)? + number(12)?, resident: number(21)? })
    };
    pids().filter_map(stat).collect()
}

/// Returns the group of a process: much cheaper than reading its files.
fn group_of(pid: i32) -> Option<Pid> {
    // Not by rustix: one of a group outside our PID namespace is in group 0, which it calls a bug.
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok()?;
    Pid::from_raw(group.as_raw())
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
