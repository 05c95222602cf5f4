//! Finds programs that use a CPU all the time in jobs that should mostly wait, and lowers their
//! priority, so that they delay other programs less.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use super::{process, process_table};

/// Interval at which programs are observed.
const INTERVAL: Duration = Duration::from_millis(300);
/// Number of consecutive observations after which a program that is always runnable counts as
/// spinning.
const LOOKS: u32 = 5;
/// The niceness of such a program.
const NICE: i32 = 15;

/// The owners of the observed processes.
static OWNERS: Mutex<Option<HashSet<usize>>> = Mutex::new(None);
static WATCH: Once = Once::new();

/// Observes the processes of `owner`.
pub(crate) fn watch(owner: usize) {
    with(|owners| _ = owners.insert(owner));
    WATCH.call_once(|| _ = thread::spawn(observe));
}

/// Stops observing the processes of `owner`.
pub(crate) fn forget(owner: usize) {
    with(|owners| _ = owners.remove(&owner));
}

fn observe() {
    let mut seen: HashMap<Pid, u32> = HashMap::new();
    loop {
        thread::sleep(INTERVAL);
        let owners = with(|owners| owners.clone());
        let groups = process::groups_of(&owners);
        let runnable = process_table::runnable(&groups);
        seen.retain(|group, _| runnable.contains(group));
        for group in runnable {
            let looks = seen.entry(group).or_default();
            *looks += 1;
            if *looks == LOOKS {
                // The group may have ended.
                let _ = rustix::process::setpriority_pgrp(Some(group), NICE);
            }
        }
    }
}

fn with<T>(work: impl FnOnce(&mut HashSet<usize>) -> T) -> T {
    let mut owners = OWNERS.lock().unwrap_or_else(PoisonError::into_inner);
    work(owners.get_or_insert_default())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::{Input, Process};
    use crate::wait::wait_until;

    #[test]
    fn a_spinning_process_gets_a_lower_priority_and_a_sleeping_one_does_not() {
        let owner = usize::MAX - 1;
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Process::spawn(command, owner, Input::Null).unwrap()
        };
        let (spins, sleeps) = (shell("while :; do :; done"), shell("sleep 100"));
        let nice =
            |process: &Process| rustix::process::getpriority_process(Some(process.pid())).unwrap();
        let before = nice(&sleeps);
        watch(owner);
        assert!(wait_until(Duration::from_secs(30), || nice(&spins) >= NICE));
        assert_eq!(nice(&sleeps), before);
        forget(owner);
    }
}
