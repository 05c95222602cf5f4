//! Counts system calls with `strace -c`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use super::peers;
use accio_harness::process::{AtDrop, Process};
use accio_harness::usage::tree;

/// System calls of a process tree.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) total: u64,
    /// The most frequent calls with their numbers.
    pub(super) list: String,
}

/// An `strace` that counts the calls of a running server.
#[derive(Debug)]
pub(super) struct CallCounter {
    strace: Process,
    output: PathBuf,
}

impl CallCounter {
    pub(super) fn attach(server: Pid, output: &Path) -> Result<Self> {
        let mut command = Command::new(peers::strace().context("no strace")?);
        command.args(["-c", "-f", "-qq", "-o"]).arg(output);
        let pids = tree(server);
        command
            .args(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.as_raw_nonzero().to_string()]));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = output.with_extension("log");
        let mut strace = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?;
        let end = Instant::now() + Duration::from_secs(5);
        while !pids.iter().all(|pid| is_traced(*pid)) {
            if Instant::now() > end || strace.has_ended()? {
                let output = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("strace cannot attach to processes {pids:?}: {}", output.trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(CallCounter { strace, output: output.to_owned() })
    }

    /// Detaches from the server and returns the counts.
    pub(super) fn finish(mut self) -> Result<Calls> {
        self.strace.signal_group(Signal::INT);
        self.strace.wait(Duration::from_secs(10))?;
        read(&self.output)
    }
}

/// Wraps `command` in an `strace` that writes the counts to `output`.
pub(super) fn wrap(command: &Command, output: &Path) -> Result<Command> {
    let mut wrapped = Command::new(peers::strace().context("no strace")?);
    wrapped.args(["-c", "-f", "-qq", "-o"]).arg(output);
    wrapped.arg(command.get_program()).args(command.get_args());
    Ok(wrapped)
}

/// Parses the table that `strace -c` wrote.
pub(super) fn read(output: &Path) -> Result<Calls> {
    let text = std::fs::read_to_string(output)?;
    let mut calls: Vec<(u64, &str)> = text
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = *fields.last()?;
            let count = fields.get(3)?.parse().ok()?;
            (name != "total" && fields[0].parse::<f64>().is_ok()).then_some((count, name))
        })
        .collect();
    calls.sort_by(|a, b| b.cmp(a));
    let list = calls.iter().take(8).map(|(count, name)| format!("{count} {name}"));
    Ok(Calls {
        total: calls.iter().map(|(count, _)| count).sum(),
        list: list.collect::<Vec<_>>().join(", "),
    })
}

fn is_traced(pid: Pid) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))
        .into_iter()
        .flatten()
        .flatten();
    tasks.into_iter().all(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.lines().any(|line| line == "TracerPid:\t0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_counts_with_and_without_errors() {
        let path = std::env::temp_dir().join(format!("accio-strace-{}", std::process::id()));
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ------\n \
                     90.00    0.010000          10      1000         5 splice\n \
                     10.00    0.001000           1        20           recvfrom\n\
                     ------ ----------- ----------- --------- --------- ------\n\
                     100.00    0.011000          10      1020         5 total\n";
        std::fs::write(&path, table).unwrap();
        let calls = read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((calls.total, calls.list.as_str()), (1020, "1000 splice, 20 recvfrom"));
    }
}
