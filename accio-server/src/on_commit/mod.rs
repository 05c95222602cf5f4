//! `--on-commit`: runs a command for every complete file.
//!
//! A helper, a second process of the same program, runs the commands. It starts before the sandbox
//! forbids running programs, and its command is fixed at that time: the server can only tell it
//! which files are complete. The pipe between the two processes carries one line per file.

mod children;
mod queue;

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use accio_cli::{Color, Failure, USAGE, Verbosity, peer_text};
use accio_proto::{Outcome, os_error_text};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use children::Children;
use queue::Queue;

/// First argument that makes the program run as this helper. It is not a valid port.
const HELPER: &str = "__on-commit";

/// Size of the pipe to the helper in bytes: one page, because files wait in the server's queue.
const PIPE: usize = 4096;

/// How long commands may take to end after SIGTERM.
const GRACE: Duration = Duration::from_millis(200);

/// Interval at which the server checks whether the helper has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The command to run and its limits.
#[derive(Debug)]
pub(crate) struct OnCommit {
    pub(crate) command: Vec<String>,
    pub(crate) jobs: NonZeroUsize,
    /// Maximum number of files that wait for their command.
    pub(crate) queue: usize,
    /// The directory of received files, as an absolute path.
    pub(crate) folder: PathBuf,
    pub(crate) verbosity: Verbosity,
    pub(crate) color: Color,
}

/// The helper process, before the server passes files to it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    pipe: ChildStdin,
    queue_size: usize,
}

/// The helper process, while the server passes files to it.
#[derive(Debug)]
pub(crate) struct ActiveHelper {
    child: Child,
    queue: Queue,
}

/// A complete file.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    id: u64,
    bytes: u64,
    peer: Option<SocketAddr>,
    identity: Option<String>,
    digest: Option<String>,
}

/// Splits a command line like a shell, and checks that its program exists.
pub(crate) fn parse(line: &str) -> Result<Vec<String>, Failure> {
    let failure = |why: &dyn std::fmt::Display| {
        Failure::new(format_args!("--on-commit {line:?}"), why).with_code(USAGE)
    };
    let command = shell_words::split(line).map_err(|error| failure(&error))?;
    let program = command.first().ok_or_else(|| failure(&"no command"))?;
    let is_program = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let found = if program.contains('/') {
        is_program(Path::new(program))
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| is_program(&dir.join(program)))
    };
    if found { Ok(command) } else { Err(failure(&format_args!("no program {program:?}"))) }
}

impl OnCommit {
    /// Starts the helper process.
    pub(crate) fn start(&self) -> Result<Helper, Failure> {
        let start = || -> io::Result<Helper> {
            let mut child = Command::new("/proc/self/exe")
                .arg0("accio-server")
                .arg(HELPER)
                // accio-cli looks for this flag before the arguments of the command.
                .arg(format!("--color={}", self.color()))
                .arg(if self.verbosity.quiet {
                    "q".into()
                } else {
                    self.verbosity.verbose.to_string()
                })
                .arg(self.jobs.to_string())
                .arg(&self.folder)
                .args(&self.command)
                .env_remove("NOTIFY_SOCKET")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                // Keeps the terminal's signals to the server away from the commands.
                .process_group(0)
                .spawn()?;
            // stdin was configured as a pipe above.
            let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            if let Err(error) = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE) {
                log::debug!("the queue of --on-commit is larger than asked for: {error}");
            }
            Ok(Helper { child, pipe, queue_size: self.queue })
        };
        start().map_err(|error| {
            Failure::new("cannot start the helper of --on-commit", os_error_text(&error))
        })
    }

    fn color(&self) -> &'static str {
        match self.color {
            Color::Auto => "auto",
            Color::Always => "always",
            Color::Never => "never",
        }
    }
}

impl Helper {
    /// Returns the process group of the helper and its commands.
    pub(crate) fn group(&self) -> i32 {
        // Process IDs always fit.
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Starts passing files to the helper, in a thread that inherits the sandbox.
    pub(crate) fn run(self) -> Result<ActiveHelper, Failure> {
        let Helper { child, pipe, queue_size } = self;
        Ok(ActiveHelper { child, queue: Queue::start(queue_size, pipe)? })
    }
}

impl ActiveHelper {
    /// Queues a complete file for the command; never waits.
    pub(crate) fn push(&self, outcome: &Outcome) {
        let identity = outcome.identity.as_deref().map(str::to_owned);
        let digest = outcome.digest.map(|digest| digest.to_string());
        let Outcome { id, bytes, peer, .. } = *outcome;
        self.queue.push(Job { id, bytes, peer, identity, digest });
    }

    /// Returns the number of files without a command because the queue was full or the helper had
    /// ended.
    pub(crate) fn lost(&self) -> u64 {
        self.queue.lost()
    }

    /// Lets the helper work off the queue until `deadline()`, then ends it and its commands.
    pub(crate) fn finish(self, deadline: &dyn Fn() -> Instant) {
        let ActiveHelper { mut child, queue } = self;
        let report = queue.close();
        end(&mut child, deadline);
        report();
    }
}

/// Waits for the helper until `deadline()`, then ends it and its commands.
fn end(child: &mut Child, deadline: &dyn Fn() -> Instant) {
    if wait(child, deadline) {
        return;
    }
    log::warn!("commands of --on-commit did not finish in time");
    // The helper leads its own process group, which exists at least until the helper is waited for.
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return };
    let send = |signal| {
        if let Err(error) = rustix::process::kill_process_group(group, signal) {
            log::debug!("cannot end the commands of --on-commit: {error}");
        }
    };
    send(Signal::TERM);
    let grace = Instant::now() + GRACE;
    if !wait(child, &|| grace) {
        send(Signal::KILL);
        // SIGKILL cannot be blocked, so this wait is short.
        let _ = child.wait();
    }
}

/// Waits for the process to end; returns false at `deadline()`.
fn wait(child: &mut Child, deadline: &dyn Fn() -> Instant) -> bool {
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= deadline() {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Runs the helper if this process was started as one. Returns `None` otherwise.
pub(crate) fn help() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != HELPER {
        return None;
    }
    arguments.next()?;
    let mut text = || arguments.next().and_then(|value| value.into_string().ok());
    let (level, jobs) = (text()?, text()?.parse::<usize>().ok()?);
    let (folder, command) = (PathBuf::from(arguments.next()?), arguments.collect::<Vec<_>>());
    Verbosity { quiet: level == "q", verbose: level.parse().unwrap_or(0) }.start_log();
    // After a signal, the helper finishes the running commands and starts no more. The commands
    // themselves run with default signal handlers.
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&ending)) {
            log::warn!("--on-commit: cannot watch for signals: {}", os_error_text(&error));
        }
    }
    let children = match Children::adopt() {
        Ok(children) => children,
        Err(error) => {
            log::error!("--on-commit: cannot start a thread: {}", os_error_text(&error));
            return Some(ExitCode::FAILURE);
        }
    };
    let work = Work {
        queue: Mutex::new(BufReader::new(io::stdin())),
        folder,
        command,
        ending,
        children,
        dropped: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let mut threads = 0;
        for _ in 1..jobs {
            let spawned = std::thread::Builder::new().spawn_scoped(scope, || work.run());
            threads += usize::from(spawned.is_ok());
        }
        log::debug!("--on-commit: up to {} commands at once", threads + 1);
        work.run();
    });
    let dropped = work.dropped.into_inner();
    if dropped > 0 {
        log::error!("{dropped} files without an --on-commit command: the server has ended");
    }
    Some(ExitCode::SUCCESS)
}

/// State shared by the helper's threads.
struct Work<Q> {
    queue: Mutex<Q>,
    folder: PathBuf,
    command: Vec<OsString>,
    ending: Arc<AtomicBool>,
    children: Arc<Children>,
    /// Files that were still queued at shutdown.
    dropped: AtomicU64,
}

impl<Q: BufRead> Work<Q> {
    /// Runs the command for one file after another.
    fn run(&self) {
        let mut line = String::new();
        loop {
            line.clear();
            match lock(&self.queue).read_line(&mut line) {
                Ok(0) => return,
                Ok(_) if self.ending.load(Ordering::SeqCst) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok(_) => {}
                Err(error) => return log::error!("--on-commit: {}", os_error_text(&error)),
            }
            let job: Job = match serde_json::from_str(&line) {
                Ok(job) => job,
                Err(error) => {
                    log::error!("--on-commit: {error}");
                    continue;
                }
            };
            let (id, started) = (job.id, Instant::now());
            match self.run_for(&job) {
                Ok(status) if status.success() => {
                    log::debug!("connection {id}: --on-commit took {:.3?}", started.elapsed());
                }
                Ok(status) => log::warn!("connection {id}: --on-commit failed: {status}"),
                Err(error) => log::warn!("connection {id}: --on-commit: {}", os_error_text(&error)),
            }
        }
    }

    fn run_for(&self, job: &Job) -> io::Result<ExitStatus> {
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("ACCIO_ID", job.id.to_string())
            .env("ACCIO_PATH", self.folder.join(format!("{}.file", job.id)))
            .env("ACCIO_BYTES", job.bytes.to_string())
            .env("ACCIO_IDENTITY", job.identity.as_deref().unwrap_or_default())
            .env("ACCIO_FILE_DIGEST", job.digest.as_deref().unwrap_or_default())
            .env("ACCIO_PEER", job.peer.map(peer_text).unwrap_or_default())
            .stdin(Stdio::null())
            // The server's own stdout may be its journal.
            .stdout(io::stderr());
        self.children.run(&mut command)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_command_like_a_shell_and_checks_its_program() {
        assert_eq!(
            parse("sh -c 'echo \"$ACCIO_ID\"'").unwrap(),
            ["sh", "-c", "echo \"$ACCIO_ID\""]
        );
        assert_eq!(parse("/bin/sh").unwrap(), ["/bin/sh"]);
        for bad in ["", "  ", "sh 'open", "/no/such/program", "no-such-program-at-all", "/tmp"] {
            parse(bad).unwrap_err();
        }
    }
}
