//! The time that programs take without the delays of a busy machine: their CPU time and the time
//! that they wait for something else than a CPU.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use accio_harness::cpu_delay::CpuDelay;
use accio_harness::{scheduling_delay, usage};

/// Shortest and longest interval at which the delays are read.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Measures time, without that for which the programs under test waited for a CPU.
#[derive(Debug)]
pub(crate) struct OwnTime {
    began: Instant,
    /// The process groups, and how long each had waited for a CPU at the beginning.
    groups: Vec<(Pid, Duration, CpuDelay)>,
    /// When to read the delays again.
    next: Cell<Instant>,
}

impl OwnTime {
    /// Starts to measure. The programs of these process groups work one for the other, so that a
    /// delay of one delays all.
    pub(crate) fn of(groups: &[Pid]) -> OwnTime {
        let began = Instant::now();
        let groups = groups.iter().map(|group| (*group, waited(*group), CpuDelay::observe(*group)));
        let groups = groups.collect();
        OwnTime { began, groups, next: Cell::new(began) }
    }

    /// Returns whether more than `limit` has passed. Cheap enough to be called in a loop.
    pub(crate) fn exceeds(&self, limit: Duration) -> bool {
        let now = Instant::now();
        if now < self.began + limit || now < self.next.get() {
            return false;
        }
        let elapsed = self.elapsed();
        let (least, most) = INTERVAL;
        self.next.set(now + limit.saturating_sub(elapsed).clamp(least, most));
        elapsed > limit
    }

    /// Returns the time that has passed.
    pub(crate) fn elapsed(&self) -> Duration {
        let delays = self.groups.iter().map(|(group, before, delay)| {
            // The first is precise, but does not count the threads that have ended.
            waited(*group).saturating_sub(*before).max(delay.total())
        });
        // This process is also delayed, and then it sends and notices events late.
        let own = scheduling_delay::total_since(self.began);
        self.began.elapsed().saturating_sub(delays.sum::<Duration>().max(own))
    }
}

fn waited(group: Pid) -> Duration {
    usage::waited_for_cpu(&usage::tree(group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use accio_harness::process::{Input, NO_OWNER, Process};
    use std::process::Command;
    use std::thread;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn(command, NO_OWNER, Input::Null).unwrap()
    }

    #[test]
    fn counts_sleep_but_not_the_wait_for_a_cpu() {
        let cores = thread::available_parallelism().unwrap().get();
        let sleeps = shell("sleep 60");
        let all: Vec<Process> =
            (0..4 * cores).map(|_| shell("ulimit -t 20; while :; do :; done")).collect();
        let (sleeping, busy) = (OwnTime::of(&[sleeps.pid()]), OwnTime::of(&[all[0].pid()]));
        thread::sleep(Duration::from_secs(1));
        assert!(sleeping.elapsed() > busy.elapsed());
        assert!(busy.elapsed() < Duration::from_millis(800), "{:?}", busy.elapsed());
        assert!(!busy.exceeds(Duration::from_secs(60)));
    }
}
