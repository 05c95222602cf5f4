//! Reads the process table: which processes exist, their groups, and what they use.
//!
//! Reading the whole table takes up to a millisecond, and dozens of checks wait for their programs at
//! the same time, so they share what was read a moment ago.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::usage;

/// How long the groups of all processes are used before they are read again. Shorter than the
/// interval of 10 ms at which checks look at a program that they wait for.
const FRESH: Duration = Duration::from_millis(9);
/// Number of consecutive checks without a runnable thread after which a group is idle.
const RESTS: u32 = 3;

/// Processes and their groups.
type Groups = Arc<[(i32, Pid)]>;

/// The processes that were read last, and when the reading began.
static READ: Mutex<Option<(Instant, Groups)>> = Mutex::new(None);

/// Returns whether this system has the table, and so shows what other processes use.
pub fn exists() -> bool {
    cfg!(linux_sys) && Path::new("/proc/self/stat").exists()
}

/// Returns all processes and their groups, as of a moment ago.
fn processes() -> Groups {
    // The lock is held while the table is read, so that the others who need it wait for the result.
    let asked = Instant::now();
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    match &*read {
        Some((at, groups)) if *at >= asked || at.elapsed() < FRESH => Arc::clone(groups),
        _ => {
            let now = Instant::now();
            let groups: Groups = pids().filter_map(|pid| Some((pid, group_of(pid)?))).collect();
            *read = Some((now, Arc::clone(&groups)));
            groups
        }
    }
}

/// Returns the children of this process.
pub(crate) fn children() -> Vec<Pid> {
    if !Path::new("/proc/thread-self/children").exists() {
        return children_in_table();
    }
    let mut found = Vec::new();
    // Each thread has a list of its own. A thread that has just ended has no list.
    for thread in numbers_in(Path::new("/proc/self/task")) {
        let list = fs::read_to_string(format!("/proc/self/task/{thread}/children"));
        let list = list.unwrap_or_default();
        let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
        found.extend(pids.filter_map(Pid::from_raw));
    }
    found
}

/// Does the same with kernels that do not list the children of a thread.
fn children_in_table() -> Vec<Pid> {
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
    processes().iter().filter(|(_, of)| *of == group).map(|(pid, _)| *pid).collect()
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

/// Returns whether any thread of the group is running, or waits for a CPU or the disk.
pub fn wants_to_run(group: Pid) -> bool {
    members(group).into_iter().any(is_runnable)
}

/// Returns those of the groups that want to run.
pub(crate) fn runnable(groups: &HashSet<Pid>) -> HashSet<Pid> {
    if groups.is_empty() {
        return HashSet::new();
    }
    let processes = processes();
    let members = processes.iter().filter(|(_, group)| groups.contains(group));
    members.filter(|(pid, _)| is_runnable(*pid)).map(|(_, group)| *group).collect()
}

/// Returns whether a thread of the process is running, or waits for a CPU or the disk.
pub(crate) fn is_runnable(pid: i32) -> bool {
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

/// Values of `/proc/PID/stat`.
pub(crate) struct ProcessStat {
    pub(crate) group: Pid,
    ticks: u64,
    /// Number of resident pages.
    pub(crate) resident: u64,
}

/// Reads `/proc/PID/stat` of the processes in these groups.
pub(crate) fn stats(groups: &HashSet<Pid>) -> Vec<ProcessStat> {
    let stat = |(pid, group): (i32, Pid)| -> Option<ProcessStat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name may contain any character. The fields follow it; the first is the state.
        let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(ProcessStat { group, ticks: number(11)? + number(12)?, resident: number(21)? })
    };
    let processes = processes();
    let members = processes.iter().filter(|(_, group)| groups.contains(group));
    members.copied().filter_map(stat).collect()
}

/// Returns the processes of a user.
pub(crate) fn pids_of_user(uid: u32) -> impl Iterator<Item = i32> {
    pids().filter(move |pid| {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|metadata| metadata.uid() == uid)
    })
}

/// Returns the number of resident pages of the process with this directory.
pub(crate) fn resident(process: &Path) -> u64 {
    let text = fs::read_to_string(process.join("statm")).unwrap_or_default();
    text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// Returns the processes in an opened process table, and the numbers of their resident pages.
pub(crate) fn resident_in(table: &OwnedFd) -> Vec<(i32, u64)> {
    let entries = rustix::fs::Dir::read_from(table).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok());
    let resident = |pid: i32| {
        let path = format!("{pid}/statm");
        let file = rustix::fs::openat(table, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = [0; 128];
        // A process that has ended has no memory.
        let length = file.and_then(|file| rustix::io::read(file, &mut text)).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        (pid, text.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or(0))
    };
    pids.map(resident).collect()
}

/// Returns the group of a process; this is much cheaper than reading its files.
pub(crate) fn group_of(pid: i32) -> Option<Pid> {
    // rustix would panic for a group outside our PID namespace, because its id is 0.
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok()?;
    Pid::from_raw(group.as_raw())
}

pub(crate) fn pids() -> impl Iterator<Item = i32> {
    numbers_in(Path::new("/proc"))
}

pub(crate) fn numbers_in(table: &Path) -> impl Iterator<Item = i32> + use<> {
    let entries = fs::read_dir(table).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::{Input, NO_OWNER, Process};

    #[test]
    fn finds_the_children_of_this_process_and_the_members_of_a_group() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 100 & wait"]);
        let shell = Process::spawn(command, NO_OWNER, Input::Null).unwrap();
        assert!(children().contains(&shell.pid()));
        assert!(children_in_table().contains(&shell.pid()));
        let both = || members(shell.pid()).len() == 2;
        assert!(crate::wait::wait_until(Duration::from_secs(30), both));
        assert!(settles(shell.pid(), Duration::from_secs(30)));
    }
}
