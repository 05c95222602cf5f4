//! `--on-commit` and `--accept-if`: run a command for every complete file, after or before it is
//! named.
//!
//! A helper, a second process of the same program, runs the commands. It starts before the sandbox
//! forbids running programs, and its commands are fixed at that time: the server can only tell it
//! about files. Its standard input is a pipe with one line per file for `--on-commit`. Its standard
//! output is a socket that carries the descriptor of each file for `--accept-if` to the helper, and
//! the decision back.

mod helper;
#[cfg(linux_sys)]
mod message;
mod queue;
#[cfg(linux_sys)]
mod reviews;
mod setup;

use std::fs;
use std::io;
#[cfg(linux_sys)]
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
#[cfg(linux_sys)]
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_cli::{Color, Failure, USAGE, Verbosity};
use accio_proto::{Connection, Outcome, os_error_text};
use rustix::process::{Pid, Signal};

pub(crate) use helper::help;
use queue::Queue;
#[cfg(linux_sys)]
pub(crate) use reviews::Reviews;
#[cfg(linux_sys)]
pub(crate) use setup::AcceptIf;
pub(crate) use setup::OnCommit;
use setup::{GRACE, HELPER, Job, Setup};

/// Size of the pipe to the helper in bytes: one page, because files wait in the server's queue.
#[cfg(linux_sys)]
const PIPE: usize = 4096;

/// Interval at which the server checks whether the helper has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The commands to run, and their limits.
#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) on_commit: Option<OnCommit>,
    #[cfg(linux_sys)]
    pub(crate) accept_if: Option<AcceptIf>,
    /// Maximum number of files that wait for the command of `--on-commit`.
    pub(crate) queue: usize,
    /// The directory of received files, as an absolute path.
    pub(crate) file_dir: PathBuf,
    pub(crate) verbosity: Verbosity,
    pub(crate) color: Color,
}

/// The helper process, before the server passes files to it.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    pipe: ChildStdin,
    #[cfg(linux_sys)]
    socket: OwnedFd,
    queue_size: Option<usize>,
    #[cfg(linux_sys)]
    accept_if: Option<AcceptIf>,
}

/// The helper process, while the server passes files to it.
#[derive(Debug)]
pub(crate) struct ActiveHelper {
    child: Child,
    queue: Option<Queue>,
    #[cfg(linux_sys)]
    reviews: Option<Arc<Reviews>>,
}

/// Splits the command line of a flag like a shell, and checks that its program exists.
pub(crate) fn parse(flag: &str, line: &str) -> Result<Vec<String>, Failure> {
    let failure = |why: &dyn std::fmt::Display| {
        Failure::new(format_args!("{flag} {line:?}"), why).with_code(USAGE)
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
    match found {
        true => Ok(command),
        false => Err(failure(&format_args!("no program {program:?}"))
            .with_advice("give the path of an executable file, or install it")),
    }
}

impl Commands {
    /// Starts the helper process, if there is a command.
    pub(crate) fn start(&self) -> Result<Option<Helper>, Failure> {
        if !self.is_any() {
            return Ok(None);
        }
        self.spawn().map(Some).map_err(|error| {
            Failure::new("cannot start the helper of --on-commit", os_error_text(&error))
        })
    }

    fn is_any(&self) -> bool {
        #[cfg(linux_sys)]
        if self.accept_if.is_some() {
            return true;
        }
        self.on_commit.is_some()
    }

    fn spawn(&self) -> io::Result<Helper> {
        let setup = Setup {
            quiet: self.verbosity.quiet,
            verbose: self.verbosity.verbose,
            on_commit: self.on_commit.clone(),
            #[cfg(linux_sys)]
            accept_if: self.accept_if.clone(),
        };
        #[cfg(linux_sys)]
        let (socket, stdout) = message::pair()?;
        #[cfg(not(linux_sys))]
        let stdout = Stdio::null();
        let mut child = Command::new(own_program()?)
            .arg0("accio-server")
            .arg(HELPER)
            // accio-cli looks for this flag before the arguments of the command.
            .arg(format!("--color={}", self.color()))
            .arg(serde_json::to_string(&setup)?)
            .arg(&self.file_dir)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::piped())
            .stdout(stdout)
            // Keeps the terminal's signals to the server away from the commands.
            .process_group(0)
            .spawn()?;
        // stdin was configured as a pipe above.
        let pipe = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        #[cfg(linux_sys)]
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE) {
            log::debug!("the queue of --on-commit is larger than asked for: {error}");
        }
        let queue_size = self.on_commit.as_ref().map(|_| self.queue);
        Ok(Helper {
            child,
            pipe,
            #[cfg(linux_sys)]
            socket,
            queue_size,
            #[cfg(linux_sys)]
            accept_if: self.accept_if.clone(),
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
    /// Returns the process group of the helper and the commands of `--on-commit`.
    #[cfg(linux_sys)]
    pub(crate) fn group(&self) -> i32 {
        // Process IDs always fit.
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Starts passing files to the helper, in threads that inherit the sandbox.
    pub(crate) fn run(self) -> Result<ActiveHelper, Failure> {
        let queue = self.queue_size.map(|size| Queue::start(size, self.pipe)).transpose()?;
        #[cfg(linux_sys)]
        let reviews =
            self.accept_if.map(|command| Reviews::start(self.socket, &command)).transpose()?;
        Ok(ActiveHelper {
            child: self.child,
            queue,
            #[cfg(linux_sys)]
            reviews,
        })
    }
}

impl ActiveHelper {
    /// Returns the reviews of `--accept-if`.
    #[cfg(linux_sys)]
    pub(crate) fn reviews(&self) -> Option<&Arc<Reviews>> {
        self.reviews.as_ref()
    }

    /// Queues a complete file for the command of `--on-commit`; never waits.
    pub(crate) fn push(&self, outcome: &Outcome) {
        let Some(queue) = &self.queue else { return };
        let identity = outcome.connection.identity.as_deref().map(str::to_owned);
        let digest = outcome.digest.map(|digest| digest.to_string());
        let Connection { id, peer, .. } = outcome.connection;
        let bytes = outcome.bytes;
        queue.push(Job { id, bytes, peer, identity, digest });
    }

    /// Returns the number of files without a command because the queue was full or the helper had
    /// ended; `None` without `--on-commit`.
    pub(crate) fn lost(&self) -> Option<u64> {
        self.queue.as_ref().map(Queue::lost)
    }

    /// Ends the running commands of `--accept-if`, whose uploads the server is about to abort.
    #[cfg(linux_sys)]
    pub(crate) fn stop_reviews(&self) {
        if let Some(reviews) = &self.reviews {
            reviews.stop();
        }
    }

    /// Lets the helper work off the queue until `deadline()`, then ends it and its commands.
    pub(crate) fn finish(self, deadline: &dyn Fn() -> Instant) {
        #[cfg(linux_sys)]
        self.stop_reviews();
        let ActiveHelper { mut child, queue, .. } = self;
        let report = queue.map(Queue::close);
        end(&mut child, deadline);
        if let Some(report) = report {
            report();
        }
    }
}

/// Returns the program that is running, even if its file was replaced.
#[cfg(linux_sys)]
fn own_program() -> io::Result<PathBuf> {
    Ok("/proc/self/exe".into())
}

/// Returns the path of the program that is running.
#[cfg(not(linux_sys))]
fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_like_in_a_shell_and_must_exist() {
        let parse = |line| parse("--on-commit", line);
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
