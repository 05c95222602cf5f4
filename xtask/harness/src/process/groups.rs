//! Keeps track of all running process groups, so that none outlives its scenario or this process.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::wait::wait_until;
use crate::{process_table, resource_limits};

/// Maximum duration of the end of killed processes.
const ENDING_LIMIT: Duration = Duration::from_secs(5);
/// How often orphans of orphans are looked for, at most.
const ROUNDS: usize = 1000;

/// The running groups, each with its owner.
static GROUPS: Mutex<Vec<(Pid, usize)>> = Mutex::new(Vec::new());

/// A process that ended by itself.
#[derive(Debug, Clone)]
pub struct OwnEnd {
    /// Its process id.
    pub pid: Pid,
    /// How it ended: `exit code 1`.
    pub how: String,
}

/// The ended processes of an owner.
#[derive(Debug, Clone, Default)]
pub struct EndedProcesses {
    /// Those that ended by themselves, in order.
    pub ends: Vec<OwnEnd>,
    /// The longest time that one of them waited for a CPU.
    pub waited: Duration,
}

static ENDED: Mutex<BTreeMap<usize, EndedProcesses>> = Mutex::new(BTreeMap::new());

/// Records the end of a process of `owner`.
pub(super) fn record_end(owner: usize, end: Option<OwnEnd>, waited: Duration) {
    let mut ended = ENDED.lock().unwrap_or_else(PoisonError::into_inner);
    let one = ended.entry(owner).or_default();
    one.ends.extend(end);
    one.waited = one.waited.max(waited);
}

/// Removes and returns what is known about the ended processes of `owner`.
pub fn take_ended(owner: usize) -> EndedProcesses {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner).remove(&owner).unwrap_or_default()
}

/// Whether orphans become children of this process.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// The thread that has killed all groups and is about to end this process.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

pub(super) fn groups() -> MutexGuard<'static, Vec<(Pid, usize)>> {
    let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    if ENDING.get().is_some_and(|thread| *thread != thread::current().id()) {
        drop(groups);
        // This process is about to end, so no thread may start another group.
        loop {
            thread::park();
        }
    }
    groups
}

/// Runs `work` while no process is being started. Between fork and exec, a new process has copies
/// of all our descriptors, so that a port that was just closed may still be in use.
pub fn while_none_starts<T>(work: impl FnOnce() -> T) -> T {
    let _none = groups();
    work()
}

/// Returns the running groups of these owners.
pub(crate) fn groups_of(owners: &HashSet<usize>) -> HashSet<Pid> {
    let groups = groups();
    groups.iter().filter(|(_, owner)| owners.contains(owner)).map(|(pid, _)| *pid).collect()
}

/// The owners whose processes are all in a PID namespace, which ends with the group of its first
/// process.
static CONFINED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

/// Records whether all processes of `owner` are in a PID namespace.
#[cfg(linux_sys)]
pub(crate) fn set_confined(owner: usize, is_confined: bool) {
    let mut confined = CONFINED.lock().unwrap_or_else(PoisonError::into_inner);
    match is_confined {
        true => confined.insert(owner),
        false => confined.remove(&owner),
    };
}

/// Kills every group of the scenario `owner`, and its processes that left their group.
pub fn end_all_of(owner: usize) {
    let others = {
        let groups = groups();
        kill(groups.iter().filter(|(_, of)| *of == owner));
        groups.iter().filter(|(_, of)| *of != owner).map(|(pid, _)| *pid).collect()
    };
    // The environments of all processes are slow to read.
    if !CONFINED.lock().unwrap_or_else(PoisonError::into_inner).contains(&owner) {
        resource_limits::sweep(owner, &others);
    }
    if ADOPTS.load(Ordering::Relaxed) {
        end_orphans();
    }
}

/// Makes processes that leave their group and lose their parent children of this process, which
/// ends them with the next scenario.
#[cfg(linux_sys)]
pub(crate) fn adopt_orphans() {
    ADOPTS.store(nix::sys::prctl::set_child_subreaper(true).is_ok(), Ordering::Relaxed);
}

/// Kills the children of this process that it did not start. Returns whether there were any.
fn end_orphans() -> bool {
    // No process starts during this loop, so that every child of this process has its group.
    let groups = groups();
    let mut found = false;
    for pid in process_table::children() {
        if groups.iter().any(|(group, _)| *group == pid) {
            continue;
        }
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        found = true;
    }
    found
}

/// Kills all groups, then runs `then`, during which only this thread can start processes.
pub fn kill_all_groups<T>(then: impl FnOnce() -> T) -> T {
    let (owners, leaders): (HashSet<usize>, Vec<Pid>) = {
        let groups = groups();
        let _ = ENDING.set(thread::current().id());
        kill(groups.iter());
        groups.iter().map(|(pid, owner)| (*owner, *pid)).unzip()
    };
    owners.into_iter().for_each(|owner| resource_limits::sweep(owner, &HashSet::new()));
    if ADOPTS.load(Ordering::Relaxed) {
        // Their children become those of this process when they have ended. Each orphan may leave
        // others; a program that starts ever more must not prevent the end of this process.
        wait_until(ENDING_LIMIT, || leaders.iter().all(|pid| has_ended(*pid)));
        let _ = (0..ROUNDS).find(|_| !end_orphans());
    }
    then()
}

/// Returns whether a child of this process has ended.
fn has_ended(pid: Pid) -> bool {
    use rustix::process::{WaitId, WaitIdOptions};
    // Another thread waits for it, and needs its exit code.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None))
}

fn kill<'a>(groups: impl Iterator<Item = &'a (Pid, usize)>) {
    // A group is removed from the list before its id can be reused, so these groups are ours.
    for (pid, _) in groups {
        // The group may have ended already.
        let _ = rustix::process::kill_process_group(*pid, Signal::KILL);
    }
}
