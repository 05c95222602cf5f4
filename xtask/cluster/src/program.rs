//! Programs that are found, started, and ended in any case; the receiver is one.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Nothing takes longer to start or to end.
const BOUND: Duration = Duration::from_secs(30);

/// A program that is killed when dropped.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    child: Child,
}

impl Program {
    pub(super) fn start(name: &str, command: &mut Command, log: &Path) -> Result<Program> {
        let log = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        Ok(Program { name: name.to_owned(), child })
    }

    /// A command of which nothing but its arguments says what to do.
    pub(super) fn command(program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AWS_") || text.starts_with("ACCIO_") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Starts a receiver on `port`, whose arguments all but `--metrics` are in `command`, and waits
    /// until it serves.
    pub(super) fn receiver(
        name: &str,
        port: u16,
        command: &mut Command,
        folder: &Path,
    ) -> Result<Program> {
        let log = folder.join(format!("{name}.log"));
        let metrics = metrics_port(port);
        command.args(["--metrics", &metrics.to_string()]);
        let mut program = Program::start(name, command, &log)?;
        // Its own port would count a connection.
        if let Err(error) = answers(metrics) {
            let ended = program.child.try_wait()?;
            bail!("{name} ({ended:?}): {error:#}: {}", fs::read_to_string(&log)?);
        }
        Ok(program)
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits.
    pub(super) fn end(&mut self) -> Result<()> {
        // A process that was not waited for keeps its number.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < BOUND, "{} does not end", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

/// A program in PATH, or where Debian keeps those of administrators.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Where a receiver tells its numbers, out of the way of the ports the system gives.
pub(super) fn metrics_port(port: u16) -> u16 {
    10_000 + port % 10_000
}

/// Waits until somebody listens there.
pub(super) fn answers(port: u16) -> Result<()> {
    patiently(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(Into::into))
}

/// Tries until it works, but not for ever.
pub(super) fn patiently<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if began.elapsed() > BOUND => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}
