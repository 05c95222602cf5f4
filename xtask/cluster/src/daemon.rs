//! Starts and ends the programs of the cluster, such as receivers.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use accio_harness::process::{AtDrop, Process};
use accio_harness::verdict::Verdict;
use anyhow::{Result, bail};
use rustix::process::{Pid, Signal};

/// Time limit for a program to start or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// A running program, killed on drop.
#[derive(Debug)]
pub(super) struct Daemon(Process);

impl Daemon {
    /// Starts a program that appends its output to a log.
    pub(super) fn start(mut command: Command, log: &Path) -> Result<Daemon> {
        let file = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(file);
        Ok(Daemon(Process::spawn_logged(command, Some(log), AtDrop::Kill)?))
    }

    /// Starts a receiver and waits until it listens. `command` has all arguments except
    /// `--metrics`.
    pub(super) fn receiver(
        name: &str,
        metrics: u16,
        mut command: Command,
        directory: &Path,
    ) -> Result<Daemon> {
        let log = directory.join(format!("{name}.log"));
        command.args(["--metrics", &metrics.to_string()]);
        let mut program = Daemon::start(command, &log)?;
        // A connection to its upload port would be numbered.
        if let Err(error) = wait_for_listener(metrics) {
            let ended = if program.0.has_ended()? { "ended" } else { "is still running" };
            bail!("{name} ({ended}): {error:#}: {}", fs::read_to_string(&log)?);
        }
        Ok(program)
    }

    pub(super) fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// Sends SIGTERM and waits for the end.
    pub(super) fn end(&mut self) -> Verdict {
        self.0.signal(Signal::TERM)?;
        self.0.wait(LIMIT).map(drop)
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        Ok(self.0.kill()?)
    }
}

/// Waits until a program listens on `port`.
pub(super) fn wait_for_listener(port: u16) -> Result<()> {
    retry(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop)?))
}

/// Repeats `attempt` for up to half a minute until it succeeds.
pub(super) fn retry<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if began.elapsed() > LIMIT => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}
