//! The machine that a run was made on.

use std::fs::read_to_string;
use std::time::Duration;

use accio_harness::usage;
use serde::{Deserialize, Serialize};

use super::peers::TOOLS;
use super::workspace::{Storage, Workspace};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) memory_mib: u64,
    pub(super) kernel: String,
    pub(super) system: String,
    pub(super) disk: String,
    /// Share of the CPU time of all cores that other processes used during the run, from 0 to 1.
    pub(super) disturbance: f64,
    pub(super) versions: Vec<String>,
}

impl Machine {
    pub(super) fn detect(workspace: &Workspace) -> Self {
        let value = |file: &str, key: &str, separator: &str| {
            let text = read_to_string(file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
            line.and_then(|line| Some(line.split_once(separator)?.1.trim().to_owned()))
        };
        let unknown = || "unknown".to_owned();
        let memory = value("/proc/meminfo", "MemTotal", ":").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        let name = value("/etc/os-release", "PRETTY_NAME", "=");
        let release = rustix::system::uname();
        Machine {
            processor: value("/proc/cpuinfo", "model name", ":").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib >> 10,
            kernel: format!("Linux {}", release.release().to_string_lossy()),
            system: name.map_or_else(unknown, |name| name.trim_matches('"').to_owned()),
            disk: workspace.file_system(Storage::Disk).to_owned(),
            disturbance: 0.0,
            versions: TOOLS.iter().filter_map(|tool| tool.version()).collect(),
        }
    }
}

/// Measures the CPU time that other processes use.
#[derive(Debug)]
pub(super) struct BackgroundLoad {
    started: std::time::Instant,
    busy: Duration,
    ours: Duration,
}

impl BackgroundLoad {
    pub(super) fn start() -> Self {
        BackgroundLoad { started: std::time::Instant::now(), busy: busy(), ours: usage::own_cpu() }
    }

    /// Returns the share of the CPU time of all cores, since the start, that was neither idle nor
    /// used by this process and its children.
    pub(super) fn share(&self, cores: usize) -> f64 {
        let busy = busy().saturating_sub(self.busy);
        let ours = usage::own_cpu().saturating_sub(self.ours);
        let all = self.started.elapsed().as_secs_f64() * cores as f64;
        busy.saturating_sub(ours).as_secs_f64() / all
    }
}

/// Returns the CPU time of all cores that was not idle, including time stolen by the hypervisor.
fn busy() -> Duration {
    let text = read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    // user, nice, system, then idle and iowait, then irq, softirq and steal.
    let busy = ticks.iter().take(8).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
    usage::ticks(busy)
}
