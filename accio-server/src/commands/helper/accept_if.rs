//! `--accept-if`: a command that decides on each file before it is named.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use accio_proto::os_error_text;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::children::{Children, Started};
use super::environment::describe;
use super::first_line::FirstLine;
use crate::commands::message::{self, Decision};
use crate::commands::setup::Job;
use crate::commands::setup::{AcceptIf, GRACE};

/// How often a command is looked at whose output says nothing about its end.
const TICK: Duration = Duration::from_millis(20);

/// How long to wait for a command that was killed. One in the kernel's hands may take any time.
const KILLED: Duration = Duration::from_secs(1);

/// State shared by the threads that run the command.
pub(super) struct Reviewer {
    accept_if: AcceptIf,
    /// The files, and the decisions on them.
    socket: OwnedFd,
    ending: Arc<AtomicBool>,
    children: Arc<Children>,
}

/// The end of a command.
enum End {
    Exited(ExitStatus),
    TimedOut,
    /// The server stops.
    Stopped,
}

impl Reviewer {
    pub(super) fn new(
        accept_if: AcceptIf,
        socket: OwnedFd,
        ending: Arc<AtomicBool>,
        children: Arc<Children>,
    ) -> Self {
        Reviewer { accept_if, socket, ending, children }
    }

    pub(super) fn jobs(&self) -> usize {
        self.accept_if.jobs.get()
    }

    /// Runs the command for one file after another, until the server stops.
    pub(super) fn run(&self) {
        loop {
            let (job, file) = match message::receive::<Job>(&self.socket) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => return log::error!("--accept-if: {}", os_error_text(&error)),
            };
            let rejected = self.review(&job, file).err();
            let decision = Decision { id: job.id, rejected };
            if let Err(error) = message::send(&self.socket, &decision, None) {
                // The server has stopped.
                return log::debug!("--accept-if: cannot send a decision: {error}");
            }
        }
    }

    /// Returns the reason to reject a file.
    fn review(&self, job: &Job, file: Option<OwnedFd>) -> Result<(), String> {
        let (id, begun) = (job.id, Instant::now());
        let failed = |what: &str, error: &io::Error| {
            let why = format!("cannot {what}: {}", os_error_text(error));
            log::error!("connection {id}: --accept-if: {why}");
            why
        };
        let file = file.map(File::from);
        let before = state(file.as_ref()).map_err(|error| failed("look at the file", &error))?;
        let content = content(file.as_ref()).map_err(|error| failed("open the file", &error))?;
        let mut command = self.command(job).map_err(|error| failed("run the command", &error))?;
        command.stdin(content);
        let started = self.children.start(&mut command);
        let mut started = started.map_err(|error| failed("run the command", &error))?;
        let mut line = FirstLine::default();
        let end = self.wait(&mut started, &mut line, begun + self.accept_if.timeout);
        let seconds = self.accept_if.timeout.as_secs_f64();
        match end {
            End::Exited(status) if status.success() => {
                log::debug!("connection {id}: --accept-if took {:.3?}", begun.elapsed());
                match state(file.as_ref()) {
                    Ok(after) if after == before => Ok(()),
                    _ => Err("the command changed the file".to_owned()),
                }
            }
            End::Exited(status) => Err(line.text().unwrap_or_else(|| status.to_string())),
            End::TimedOut => {
                self.end(&started);
                log::warn!("connection {id}: --accept-if: no decision within {seconds} s");
                Err(format!("no decision within {seconds} s"))
            }
            End::Stopped => {
                self.end(&started);
                Err("the server was stopped".to_owned())
            }
        }
    }

    fn command(&self, job: &Job) -> io::Result<Command> {
        let [program, arguments @ ..] = &self.accept_if.command[..] else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut command = Command::new(program);
        describe(&mut command, job);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Waits for the end of the command, and reads its stderr during that time.
    fn wait(&self, started: &mut Started, line: &mut FirstLine, deadline: Instant) -> End {
        let mut stderr = started.stderr.take();
        loop {
            if self.is_stopped() {
                return End::Stopped;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return End::TimedOut;
            }
            // Usually the end of stderr is the end of the command, but a process that it has
            // started may keep stderr open, and it may close stderr itself.
            let ended = match &mut stderr {
                Some(pipe) => {
                    if !self.read(pipe, line, left.min(TICK)) {
                        stderr = None;
                    }
                    started.ended(Duration::ZERO)
                }
                None => started.ended(left.min(TICK)),
            };
            if let Some(status) = ended {
                if let Some(pipe) = &mut stderr {
                    // What it printed last.
                    self.read(pipe, line, Duration::ZERO);
                }
                return End::Exited(status);
            }
        }
    }

    /// Reads from stderr once there is something, for `limit` at most; false at its end.
    fn read(&self, pipe: &mut ChildStderr, line: &mut FirstLine, limit: Duration) -> bool {
        let mut fds = [
            PollFd::new(&*pipe, PollFlags::IN),
            // Its end is reported without being asked for.
            PollFd::new(&self.socket, PollFlags::empty()),
        ];
        // Both are far below the limits of the type.
        let limit = Timespec::try_from(limit).ok();
        if poll(&mut fds, limit.as_ref()).is_err() || fds[0].revents().is_empty() {
            return true;
        }
        let mut buffer = [0; 16 << 10];
        match pipe.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                line.add(&buffer[..count]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// Returns whether the server stops, or has ended.
    fn is_stopped(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_closed = poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0);
        is_closed || self.ending.load(Ordering::SeqCst)
    }

    /// Ends the process group of a command.
    fn end(&self, started: &Started) {
        self.children.signal(started, Signal::TERM);
        if started.ended(GRACE).is_none() {
            self.children.signal(started, Signal::KILL);
            if started.ended(KILLED).is_none() {
                log::error!("a command of --accept-if cannot be killed");
            }
        }
    }
}

/// Returns the size of the file and the time of its last change. The command could open the file for
/// writing through `/proc`, but digest and confirmation are of what the client sent.
fn state(file: Option<&File>) -> io::Result<(u64, SystemTime)> {
    let metadata = file.ok_or(io::ErrorKind::NotFound)?.metadata()?;
    Ok((metadata.len(), metadata.modified()?))
}

/// Opens the file again, to be read from its beginning and not written.
fn content(file: Option<&File>) -> io::Result<Stdio> {
    match file {
        None => Err(io::ErrorKind::NotFound.into()),
        Some(file) => Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into()),
    }
}
