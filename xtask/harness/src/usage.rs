//! Measures the CPU time and memory of processes.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use rustix::process::Pid;

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

/// Returns the longest time for which a thread of these processes was ready to run but waited for a
/// CPU. Threads that have ended are not counted.
pub fn waited_for_cpu(pids: &[Pid]) -> Duration {
    let waited = |thread: fs::DirEntry| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
    };
    let mut longest = Duration::ZERO;
    for pid in pids {
        let path = format!("/proc/{}/task", pid.as_raw_nonzero());
        let threads = entries(&path);
        longest = threads.filter_map(waited).fold(longest, Duration::max);
    }
    longest
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

    #[test]
    fn reads_memory_and_process_tree_of_this_process() {
        let own = rustix::process::getpid();
        assert!((1 << 10..1 << 30).contains(&status_kib(own, "VmHWM").unwrap()));
        assert!(tree(own).contains(&own));
    }
}
