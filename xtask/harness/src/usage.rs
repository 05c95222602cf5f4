//! Measures the CPU time and memory of processes.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use rustix::process::Pid;

/// Shortest time over which a thread counts as busy.
const SHORTEST: Duration = Duration::from_millis(10);

/// Returns the running processes of the tree with the root `root`.
pub fn tree(root: Pid) -> Vec<Pid> {
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(pid) = pids.get(next).copied() {
        next += 1;
        for task in entries(&format!("/proc/{}/task", pid.as_raw_nonzero())) {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let numbers = children.split_whitespace().flat_map(str::parse::<i32>);
            pids.extend(numbers.filter_map(Pid::from_raw));
        }
    }
    pids
}

/// Returns the user and system CPU time of a process, its descendants and the children that they
/// have waited for.
pub fn tree_cpu(root: Pid) -> Duration {
    tree(root).into_iter().map(process_cpu).sum()
}

/// How long a thread has run, and how long it was ready to run but waited for a CPU.
#[derive(Debug, Clone, Copy, Default)]
struct ThreadTimes {
    ran: Duration,
    waited: Duration,
}

/// The times of each running thread of some processes, by its number.
#[derive(Debug, Clone, Default)]
pub struct Threads(HashMap<i32, ThreadTimes>);

impl Threads {
    /// Reads the times of the threads of these processes, as of now.
    pub fn of(pids: &[Pid]) -> Threads {
        let mut all = HashMap::new();
        for pid in pids {
            let path = format!("/proc/{}/task", pid.as_raw_nonzero());
            all.extend(entries(&path).filter_map(|thread| {
                let number = thread.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
                let mut fields = stat.split_whitespace();
                let mut next = || fields.next()?.parse().ok().map(Duration::from_nanos);
                Some((number, ThreadTimes { ran: next()?, waited: next()? }))
            }));
        }
        Threads(all)
    }

    /// Returns the largest share of its time that a thread ran, between 0 and 1, given the times at the
    /// beginning and how long ago that was. The time that it waited for a CPU does not count, except for
    /// a wait that has not ended: the kernel adds it later, so a thread that hardly ever gets a CPU
    /// seems to sleep.
    pub fn busiest_since(&self, before: &Threads, elapsed: Duration) -> f64 {
        let part = |(number, now): (&i32, &ThreadTimes)| {
            let before = before.0.get(number).copied().unwrap_or_default();
            let ran = now.ran.saturating_sub(before.ran);
            let waited = now.waited.saturating_sub(before.waited);
            // The times are read one after the other, and a wait may have begun before.
            let own = elapsed.saturating_sub(waited).max(ran).max(SHORTEST);
            ran.as_secs_f64() / own.as_secs_f64()
        };
        self.0.iter().map(part).fold(0.0, f64::max)
    }
}

/// Returns the longest time for which a thread of these processes was ready to run but waited for a
/// CPU. Threads that have ended are not counted.
pub fn waited_for_cpu(pids: &[Pid]) -> Duration {
    Threads::of(pids).0.into_values().map(|times| times.waited).max().unwrap_or_default()
}

/// Returns the user and system CPU time of these processes, in clock ticks, with that of threads that
/// have ended.
pub(crate) fn cpu_of(pids: &[Pid]) -> Duration {
    let times = pids.iter().filter_map(|pid| cpu_ticks(*pid));
    times.map(|[user, system, ..]| ticks(user + system)).sum()
}

/// Returns the CPU time of a process: precise if all of its threads are still running, and
/// otherwise in clock ticks.
fn process_cpu(pid: Pid) -> Duration {
    let mut threads = Duration::ZERO;
    for task in entries(&format!("/proc/{}/task", pid.as_raw_nonzero())) {
        let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let nanos = stat.split_whitespace().next().and_then(|first| first.parse().ok());
        threads += Duration::from_nanos(nanos.unwrap_or(0));
    }
    let Some([user, system, children_user, children_system]) = cpu_ticks(pid) else {
        return threads;
    };
    threads.max(ticks(user + system)) + ticks(children_user + children_system)
}

/// Returns the user and system CPU time of a process, and those of the children that it has waited
/// for.
fn cpu_ticks(pid: Pid) -> Option<[u64; 4]> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The command name in parentheses may contain any character; the numbers follow it.
    let (_, numbers) = stat.rsplit_once(") ")?;
    let times: Vec<u64> = numbers.split(' ').skip(11).take(4).flat_map(str::parse).collect();
    times.try_into().ok()
}

/// Converts clock ticks to a duration.
pub fn ticks(count: u64) -> Duration {
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100);
    Duration::from_secs(count) / per_second.max(1)
}

/// Returns the user and system CPU time of this process and the children that it has waited for.
pub fn own_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map(sum_of).unwrap_or_default() + reaped_cpu()
}

/// Returns the user and system CPU time of the children that this process has waited for.
pub(crate) fn reaped_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_CHILDREN).map(sum_of).unwrap_or_default()
}

fn sum_of(usage: Usage) -> Duration {
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(value.tv_sec().unsigned_abs(), 0)
            + Duration::from_micros(value.tv_usec().try_into().unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Returns the sum of a field of `/proc/PID/status`, in KiB, over a process and its descendants.
pub fn tree_memory(root: Pid, field: &str) -> u64 {
    tree(root).into_iter().filter_map(|pid| status_kib(pid, field)).sum()
}

/// Returns a field of `/proc/PID/status` in KiB.
pub fn status_kib(pid: Pid, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn entries(dir: &str) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(dir).into_iter().flatten().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Input, NO_OWNER, Process};
    use crate::process_table;

    #[test]
    fn reads_memory_and_process_tree_of_this_process() {
        let own = rustix::process::getpid();
        assert!((1 << 10..1 << 30).contains(&status_kib(own, "VmHWM").unwrap()));
        assert!(tree(own).contains(&own));
    }

    #[test]
    fn a_busy_loop_differs_from_a_program_that_waits_for_a_cpu_each_time_it_wakes_up() {
        let part = |ran, waited| {
            let times = [(1, ThreadTimes::default()), (2, ThreadTimes::default())];
            let before = Threads(times.into());
            let [ran, waited] = [ran, waited].map(Duration::from_millis);
            let after = Threads([(2, ThreadTimes { ran, waited })].into());
            after.busiest_since(&before, Duration::from_secs(2))
        };
        assert_eq!(part(0, 0), 0.0);
        assert_eq!(part(200, 0), 0.1);
        assert!(part(20, 1900) < 0.3, "it slept for 80 ms");
        assert!(part(40, 1959) > 0.9, "it never slept");
        assert_eq!(part(40, 1990), 1.0, "the times were not read at once");
        assert!(part(1, 1999) < 0.2, "too little to say anything");
    }

    #[test]
    fn a_busy_loop_is_seen_next_to_others() {
        let shell = |script: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]);
            Process::spawn(command, NO_OWNER, Input::Null).unwrap()
        };
        let cores = std::thread::available_parallelism().unwrap().get();
        let loops: Vec<Process> =
            (0..4 * cores).map(|_| shell("ulimit -t 20; while :; do :; done")).collect();
        let sleeps = shell("exec sleep 60");
        process_table::settles(sleeps.pid(), Duration::from_secs(30));
        let began = std::time::Instant::now();
        let [busy, idle] = [&loops[0], &sleeps].map(|process| tree(process.pid()));
        let before = [&busy, &idle].map(|pids| Threads::of(pids));
        std::thread::sleep(Duration::from_secs(1));
        let after = [&busy, &idle].map(|pids| Threads::of(pids));
        let parts = [0, 1].map(|i| after[i].busiest_since(&before[i], began.elapsed()));
        // Other tests may keep the CPUs busy as well.
        assert!(parts[0] > 0.1 && parts[1] < 0.05, "{parts:?}");
    }
}
