//! The environment of a scenario: a directory, a seed, and the programs under test.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::namespace::Namespace;
pub use super::payload::ERROR;
use super::peer::SOON;
use super::process::{Capture, Exit, Input, Process};
use super::resource_limits::{self, Limits};
use super::sandbox::{Files, Sandbox, Support};
pub use super::servers::{Server, ServerS};
use super::subject::{Program, Subject};
use super::verdict::{During, Stop, Verdict, ensure};
pub use super::wait::wait_until;
use super::{payload, ports};

/// Number of attempts to start a server; another process may take the chosen port first.
const STARTS: usize = 5;

/// The environment of a scenario.
#[derive(Debug)]
pub struct Context {
    subject: Arc<Subject>,
    dir: PathBuf,
    seed: u64,
    owner: usize,
    made: AtomicU32,
    logs: Mutex<Vec<Log>>,
    limits: Option<Limits>,
    sandbox: Mutex<Option<Arc<Sandbox>>>,
}

/// The outputs of a process that a scenario ran.
#[derive(Debug, Clone)]
pub struct Log {
    /// Its command line.
    pub command: String,
    /// Its standard output.
    pub stdout: Arc<Capture>,
    /// Its standard error.
    pub stderr: Arc<Capture>,
}

impl Context {
    /// Creates the environment of a scenario that writes below `dir`.
    pub fn new(subject: Arc<Subject>, dir: PathBuf, seed: u64) -> Context {
        static OWNERS: AtomicUsize = AtomicUsize::new(0);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        let (made, logs) = (AtomicU32::new(0), Mutex::default());
        Context { subject, dir, seed, owner, made, logs, limits: None, sandbox: Mutex::default() }
    }

    /// Limits the resources of its processes.
    #[must_use]
    pub fn guarded(self, limits: Limits) -> Context {
        Context { limits: Some(limits), ..self }
    }

    /// Runs its further processes in a sandbox, and this thread in the sandbox's network.
    pub fn enter_sandbox(&self, support: &Arc<Support>, files: &Files, keeps: bool) -> Verdict {
        let limits = self.limits.unwrap_or_default();
        let sandbox = Sandbox::enter(support, files, &self.dir, self.owner, limits, keeps)?;
        *self.sandbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(sandbox));
        Ok(())
    }

    /// Ends the processes of its sandbox, and removes its files unless it keeps them.
    pub fn leave_sandbox(&self) {
        drop(self.sandbox.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    fn sandbox(&self) -> Option<Arc<Sandbox>> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Creates a directory for the programs to write to, whose path did not exist before.
    pub fn fresh_directory(&self, name: &str) -> io::Result<PathBuf> {
        let dir = self.fresh(name);
        fs::create_dir(&dir)?;
        self.sandbox().map_or(Ok(()), |sandbox| sandbox.give(&dir))?;
        Ok(dir)
    }

    /// Returns the number that identifies the owner of its processes.
    pub fn owner(&self) -> usize {
        self.owner
    }

    /// Returns the programs under test.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Returns the seed of file contents.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns the scenario's own directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the outputs of all processes so far.
    pub fn logs(&self) -> Vec<Log> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a path that does not exist yet.
    pub fn fresh(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}-{name}", self.made.fetch_add(1, Ordering::Relaxed)))
    }

    /// Returns `length` bytes that depend on `tag`.
    pub fn content(&self, tag: u64, length: usize) -> Vec<u8> {
        payload::bytes(self.seed.wrapping_add(tag), length)
    }

    /// Creates a file with these bytes.
    pub fn file(&self, content: &[u8]) -> Verdict<PathBuf> {
        let path = self.fresh("source");
        create(&path)?.write_all(content)?;
        Ok(path)
    }

    /// Creates a file of `length` bytes that depend on `tag`, in constant memory.
    pub fn large_file(&self, tag: u64, length: u64) -> Verdict<PathBuf> {
        let path = self.fresh("large");
        payload::write(&mut create(&path)?, self.seed.wrapping_add(tag), length)?;
        Ok(path)
    }

    /// Starts a command; its processes end with the scenario.
    pub fn spawn(&self, command: Command, input: Input) -> Verdict<Process> {
        Ok(self.try_spawn(command, input)?)
    }

    /// Like [`Context::spawn`], but keeps the error of [`Process::spawn`].
    pub fn try_spawn(&self, command: Command, input: Input) -> io::Result<Process> {
        let process = Process::spawn(command, self.owner, input)?;
        if let Some(limits) = self.limits {
            let outputs = [process.stdout(), process.stderr()].map(Arc::clone);
            resource_limits::watch(process.pid(), outputs, self.owner, limits);
        }
        Ok(self.log(process))
    }

    /// Starts a program under test with an empty input, in the sandbox if there is one, and in
    /// `network` if that is given. Keeps the error of [`Process::spawn`].
    pub fn try_spawn_confined(
        &self,
        command: Command,
        network: Option<&Namespace>,
    ) -> io::Result<Process> {
        match (self.sandbox(), network) {
            (Some(sandbox), _) => Ok(self.log(sandbox.spawn(&command, network)?)),
            (None, Some(network)) => self.try_spawn(network.wrap(&command), Input::Null),
            (None, None) => self.try_spawn(command, Input::Null),
        }
    }

    fn log(&self, process: Process) -> Process {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(Log {
            command: process.command().to_owned(),
            stdout: Arc::clone(process.stdout()),
            stderr: Arc::clone(process.stderr()),
        });
        process
    }

    /// Returns the command of one of the programs, without arguments.
    pub fn command(&self, program: Program) -> Verdict<Command> {
        Ok(self.subject.template(program)?.bare())
    }

    /// Runs a program of the subject with these arguments and no others.
    pub fn run_bare(&self, program: Program, arguments: &[&OsStr]) -> Verdict<Process> {
        let mut command = self.subject.template(program)?.bare();
        command.args(arguments);
        self.spawn(command, Input::Null)
    }

    /// Starts accio-server with a new directory and waits until it listens.
    pub fn server(&self, flags: &[&str]) -> Verdict<Server> {
        self.server_into(&self.fresh("received"), flags)
    }

    /// Starts accio-server with the directory `dir` and waits until it listens.
    pub fn server_into(&self, dir: &Path, flags: &[&str]) -> Verdict<Server> {
        let (process, port) = self.start(Program::Server, dir, &[], flags)?;
        Ok(Server { process, port, dir: dir.to_owned() })
    }

    /// Starts accio-server through the command `wrapper`, which must replace itself by the program.
    pub fn server_wrapped(&self, wrapper: &[&str], flags: &[&str]) -> Verdict<Server> {
        let dir = self.fresh("received");
        let (process, port) = self.start(Program::Server, &dir, wrapper, flags)?;
        Ok(Server { process, port, dir })
    }

    /// Starts server-s and waits until it listens.
    pub fn server_s(&self, flags: &[&str]) -> Verdict<ServerS> {
        let (process, port) = self.start(Program::ServerS, &self.dir, &[], flags)?;
        Ok(ServerS { process, port })
    }

    /// Starts the client.
    pub fn client(&self, host: &str, port: u16, file: &Path, flags: &[&str]) -> Verdict<Process> {
        let port = port.to_string();
        let values: [(&str, &OsStr); 3] =
            [("host", host.as_ref()), ("port", port.as_ref()), ("file", file.as_os_str())];
        let mut command = self.subject.template(Program::Client)?.command(&values);
        command.args(flags);
        self.spawn(command, Input::Null)
    }

    /// Runs the client and expects exit code 0 without an error message.
    pub fn send(&self, port: u16, file: &Path, flags: &[&str]) -> Verdict {
        let mut client = self.client("127.0.0.1", port, file, flags)?;
        let exit = client.wait(Duration::from_secs(60))?;
        ensure_success(&client, exit)
    }

    fn start(
        &self,
        program: Program,
        dir: &Path,
        wrapper: &[&str],
        flags: &[&str],
    ) -> Verdict<(Process, u16)> {
        self.subject.template(program)?.expect_flags(flags)?;
        let mut taken = String::new();
        for _ in 0..STARTS {
            let port = ports::free()?;
            let text = port.to_string();
            let values: [(&str, &OsStr); 2] = [("port", text.as_ref()), ("dir", dir.as_os_str())];
            let mut command = self.subject.template(program)?.command(&values);
            command.args(flags);
            if let [outer, words @ ..] = wrapper {
                let mut outer = Command::new(outer);
                outer.args(words).arg(command.get_program()).args(command.get_args());
                command = outer;
            }
            let mut process = self.spawn(command, Input::Null)?;
            // Read the log line of the server: a test connection would be numbered.
            let line = process.stderr().wait(SOON, |bytes, closed| {
                let text = String::from_utf8_lossy(bytes);
                let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
                let line = lines.find(|line| line.contains("listening on"));
                line.map(|line| Some(line.to_owned())).or_else(|| closed.then_some(None))
            });
            match line.flatten() {
                Some(line) => {
                    let place = format!(":{port}");
                    ensure(
                        line.contains(&place),
                        format!("the server to listen on …{place}"),
                        || line,
                    )?;
                    return Ok((process, port));
                }
                None => {
                    let text = process.stderr().text();
                    if !text.to_lowercase().contains("in use") {
                        return Err(Stop::fault(
                            format!("a line on stderr: listening on ADDRESS:{port}"),
                            format!(
                                "{:?}, and the process {}",
                                text,
                                if process.has_ended()? { "ended" } else { "is still running" }
                            ),
                        ))
                        .during(|| process.command().to_owned());
                    }
                    taken = text;
                }
            }
        }
        Err(Stop::Trouble(format!("another process took the port in {STARTS} attempts: {taken}")))
    }
}

/// Creates a file in a directory that programs under test may own. One of them may have guessed its
/// name and put a link there, to overwrite another file.
pub fn create(path: &Path) -> Verdict<fs::File> {
    fs::File::create_new(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Stop::fault("only files of its own", "a program created a file of the grader")
        }
        _ => error.into(),
    })
}

/// Returns a fault unless the process ended with exit code 0 and without `ERROR` on stderr.
pub fn ensure_success(process: &Process, exit: Exit) -> Verdict {
    let text = process.stderr().text();
    let good = exit.status.code() == Some(0) && !text.contains("ERROR");
    ensure(good, format!("{} to succeed", process.command()), || {
        format!("{}, stderr {text:?}", exit.describe())
    })
}

/// Returns a fault unless the process ends within `limit` like every failing program must: with one
/// line `ERROR: …` on stderr that contains one of `names`, no output on stdout and a non-zero exit
/// code.
pub fn ensure_failure(process: &mut Process, limit: Duration, names: &[&str]) -> Verdict {
    let exit = process.wait(limit)?;
    let (out, err) = (process.stdout().text(), process.stderr().text());
    let lines: Vec<&str> = err.lines().collect();
    let named = |line: &str| names.is_empty() || names.iter().any(|name| line.contains(name));
    let good = matches!(lines[..], [line] if line.starts_with("ERROR: ") && named(line))
        && out.is_empty()
        // 101 is the exit code of a panic.
        && exit.status.code().is_some_and(|code| code != 0 && code != 101);
    ensure(
        good,
        format!(
            "{} to end with a non-zero exit code and one line on stderr, ERROR: …{}",
            process.command(),
            if names.is_empty() {
                String::new()
            } else {
                format!(", that contains one of {names:?}")
            }
        ),
        || format!("{}, stderr {err:?}, stdout {out:?}", exit.describe()),
    )
}
