//! All process groups that live, so that none outlives its scenario or this process.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

use rustix::process::{Pid, Signal};

use crate::resource_limits;

/// The groups that live, and the scenario each belongs to.
static GROUPS: Mutex<Vec<(Pid, usize)>> = Mutex::new(Vec::new());

/// The thread that has ended all groups and is about to end this process.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

pub(super) fn groups() -> MutexGuard<'static, Vec<(Pid, usize)>> {
    let groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    if ENDING.get().is_some_and(|thread| *thread != thread::current().id()) {
        drop(groups);
        // Nothing may start any more.
        loop {
            thread::park();
        }
    }
    groups
}

/// Does `work` while no process is being started: one that is has copies of all our descriptors
/// until it becomes another program, so that a port just closed is still in use.
pub fn while_none_starts<T>(work: impl FnOnce() -> T) -> T {
    let _none = groups();
    work()
}

/// Ends every group of the scenario `owner`, and its processes that left their group.
pub fn end_all_of(owner: usize) {
    let others = {
        let groups = groups();
        kill(groups.iter().filter(|(_, of)| *of == owner));
        groups.iter().filter(|(_, of)| *of != owner).map(|(pid, _)| *pid).collect()
    };
    resource_limits::sweep(owner, &others);
}

/// Ends all groups, then does `then`, in which only this thread can start a process.
pub fn kill_all_groups<T>(then: impl FnOnce() -> T) -> T {
    let owners: HashSet<usize> = {
        let groups = groups();
        let _ = ENDING.set(thread::current().id());
        kill(groups.iter());
        groups.iter().map(|(_, owner)| *owner).collect()
    };
    owners.into_iter().for_each(|owner| resource_limits::sweep(owner, &HashSet::new()));
    then()
}

fn kill<'a>(groups: impl Iterator<Item = &'a (Pid, usize)>) {
    // A group leaves the list before its number is free again, so these are all ours.
    for (pid, _) in groups {
        // No such group: it has just ended by itself.
        let _ = rustix::process::kill_process_group(*pid, Signal::KILL);
    }
}
