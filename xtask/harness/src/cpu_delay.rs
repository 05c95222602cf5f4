//! Estimates how long the programs of a process group were ready to run but waited for a CPU. The
//! kernel forgets the waits of threads that have ended, so the groups are observed all the time:
//! how often a thread was ready, less the CPU time that was used.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::{process_table, usage};

/// Interval at which groups are observed.
const INTERVAL: Duration = Duration::from_millis(100);

/// The observed groups.
static GROUPS: Mutex<Option<HashMap<Pid, Observation>>> = Mutex::new(None);
static OBSERVER: Once = Once::new();

/// Observations of a group.
struct Observation {
    /// Number of handles.
    handles: usize,
    /// The last look.
    looked: Instant,
    /// CPU time of the running processes at the last look.
    used: Duration,
    /// The time for which a thread was ready, less the CPU time used, which may be negative.
    delay: f64,
}

/// Observes a group until it is dropped.
#[derive(Debug)]
pub struct CpuDelay {
    group: Pid,
    /// The delay of the group when this was created, in seconds.
    before: f64,
}

impl CpuDelay {
    /// Starts to observe the processes of the group that `group` leads.
    pub fn observe(group: Pid) -> CpuDelay {
        OBSERVER.call_once(|| {
            thread::spawn(|| {
                loop {
                    thread::sleep(INTERVAL);
                    look();
                }
            });
        });
        let used = usage::cpu_of(&usage::tree(group));
        let mut groups = groups();
        let one = groups.get_or_insert_default().entry(group).or_insert_with(|| Observation {
            handles: 0,
            looked: Instant::now(),
            used,
            delay: 0.0,
        });
        one.handles += 1;
        CpuDelay { group, before: one.delay }
    }

    /// Returns the delay so far.
    pub fn total(&self) -> Duration {
        let groups = groups();
        let now = groups.as_ref().and_then(|groups| groups.get(&self.group));
        let delay = now.map_or(0.0, |one| one.delay - self.before);
        Duration::try_from_secs_f64(delay).unwrap_or_default()
    }
}

impl Drop for CpuDelay {
    fn drop(&mut self) {
        let mut groups = groups();
        let Some(groups) = &mut *groups else { return };
        if let Some(one) = groups.get_mut(&self.group) {
            one.handles -= 1;
            if one.handles == 0 {
                groups.remove(&self.group);
            }
        }
    }
}

fn look() {
    let observed: Vec<Pid> = groups().iter().flat_map(|groups| groups.keys().copied()).collect();
    for group in observed {
        let pids = usage::tree(group);
        let mut numbers = pids.iter().map(|pid| pid.as_raw_nonzero().get());
        let (is_ready, used) = (numbers.any(process_table::is_runnable), usage::cpu_of(&pids));
        let mut groups = groups();
        let Some(one) = groups.as_mut().and_then(|groups| groups.get_mut(&group)) else { continue };
        let now = Instant::now();
        if is_ready {
            one.delay += (now - one.looked).as_secs_f64();
        }
        // A process that has ended takes its CPU time with it.
        one.delay -= used.saturating_sub(one.used).as_secs_f64();
        (one.looked, one.used) = (now, used);
    }
}

fn groups() -> MutexGuard<'static, Option<HashMap<Pid, Observation>>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::{Input, NO_OWNER, Process};
    use crate::wait::wait_until;

    /// Starts a shell, whose short processes the kernel forgets when they have ended.
    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(command, NO_OWNER, Input::Null).unwrap()
    }

    #[test]
    fn counts_the_waits_of_a_program_that_has_to_share_its_cpu_and_no_sleep() {
        let cores = thread::available_parallelism().unwrap().get();
        let sleeps = shell("sleep 100");
        let busy: Vec<Process> =
            (0..4 * cores).map(|_| shell("ulimit -t 20; while :; do :; done")).collect();
        let (sleeping, waiting) =
            (CpuDelay::observe(sleeps.pid()), CpuDelay::observe(busy[0].pid()));
        let is_delayed = || waiting.total() > Duration::from_millis(700);
        assert!(wait_until(Duration::from_secs(60), is_delayed), "{:?}", waiting.total());
        assert_eq!(sleeping.total(), Duration::ZERO);
    }
}
