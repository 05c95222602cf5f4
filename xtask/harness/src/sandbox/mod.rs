//! Sandboxes for untrusted programs. The programs of a check run as another user in their own PID,
//! mount, network and IPC namespaces, without the files of other checks. What this machine permits
//! is found once, by [`prepare`]; [`Support::protections`] lists it for reports.
//!
//! The tool runs itself again as the first process of each PID namespace and in front of each
//! program, see [`helper`].

mod commands;
mod files;
mod helper;
mod init;
mod loopback;
mod mounts;
mod probe;
mod spawner;
mod support;
mod system_calls;

use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use self::commands::{DENIES, NOT_EXECUTED, RUN};
pub use self::files::Files;
pub use self::helper::helper;
use self::init::Init;
use self::mounts::View;
use self::spawner::Spawner;
pub use self::support::{Support, prepare};
use super::namespace::Namespace;
use super::os_error_text;
use super::process::{self, Process};
use super::quoting::command_line;
use super::resource_limits::{self, Counted, Limits};
use super::verdict::{Stop, Verdict};
use super::wrapper;

/// Environment variables that programs may see, and prefixes of others. Everything else, such as
/// the tokens of a CI service, is removed.
const VARIABLES: [&str; 8] = ["PATH", "HOME", "LANG", "TERM", "TZ", "LOGNAME", "USER", "JAVA_HOME"];
const PREFIXES: [&str; 9] =
    ["LC_", "PYTHON", "PYENV", "VIRTUAL_ENV", "PERL", "RUBY", "GEM_", "NODE_", "RBENV"];

/// A sandbox for the programs of one check.
#[derive(Debug)]
pub struct Sandbox {
    support: Arc<Support>,
    limits: Limits,
    /// The user that the programs run as; `None` for the user of this process.
    uid: Option<u32>,
    owner: usize,
    /// The check's directory.
    dir: PathBuf,
    inside: Option<Namespaces>,
    /// Whether a file system of limited size is mounted on the check's directory.
    mounted: bool,
}

/// The namespaces of a check. They end, with all their processes, when `init` does.
#[derive(Debug)]
struct Namespaces {
    spawner: Spawner,
    init: Init,
}

impl Sandbox {
    /// Creates the sandbox of a check, of which `dir` is the directory. The calling thread, and the
    /// threads that it starts, then use the network of the sandbox.
    pub fn enter(
        support: &Arc<Support>,
        files: &Files,
        dir: &Path,
        owner: usize,
        limits: Limits,
        keeps_files: bool,
    ) -> Verdict<Sandbox> {
        let uid = support.uid_of(owner);
        let mut sandbox = Sandbox {
            support: Arc::clone(support),
            limits,
            uid,
            owner,
            dir: dir.to_owned(),
            inside: None,
            mounted: false,
        };
        let failed = |what: &'static str| {
            move |error: io::Error| {
                Stop::Trouble(format!("sandbox: {what}: {}", os_error_text(&error)))
            }
        };
        if support.has_namespaces() {
            if !keeps_files {
                mounts::limit_size(dir, limits.disk, uid).map_err(failed("limit the disk"))?;
                sandbox.mounted = true;
            }
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| loopback::start())
                .map_err(failed("create a network"))?;
            let mut files = files.clone();
            files.writable.push(dir.to_owned());
            let view = View::new(files);
            let spawner = Spawner::start(view).map_err(failed("create namespaces"))?;
            let init = Init::start(&spawner, owner).map_err(failed("start process 1"))?;
            sandbox.inside = Some(Namespaces { spawner, init });
            process::set_confined(owner, true);
        }
        sandbox.give(dir)?;
        Ok(sandbox)
    }

    /// Makes the programs the owner of a file or directory.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match self.uid {
            Some(uid) => std::os::unix::fs::lchown(path, Some(uid), Some(uid)),
            None => Ok(()),
        }
    }

    /// Starts a program of the check, in `network` if that is given, with an empty standard input. An
    /// error of the kind `ResourceBusy` is not one of the program.
    pub fn spawn(&self, command: &Command, network: Option<&Namespace>) -> io::Result<Process> {
        let line = command_line(command);
        let trouble = |error: io::Error| {
            let why = os_error_text(&error);
            io::Error::new(io::ErrorKind::ResourceBusy, format!("sandbox: {why}"))
        };
        let (mut status, report_to) = io::pipe().map_err(trouble)?;
        let mut wrapped = self.wrap(command);
        wrapped.stdin(Stdio::from(report_to));
        let network = network.map(Namespace::open).transpose().map_err(trouble)?;
        // This starts the helper, not yet the program.
        let process =
            Process::spawn_as(wrapped, line.clone(), self.owner, |command| match &self.inside {
                Some(inside) => inside.spawner.spawn(command, network),
                None => {
                    let mut command = std::mem::replace(command, Command::new(""));
                    match network {
                        Some(network) => spawner::spawn_in(&network, &mut command),
                        None => command.spawn(),
                    }
                }
            })
            .map_err(trouble)?;
        // The helper closes the pipe when it executes the program; it writes an error before.
        let mut report = Vec::new();
        status.read_to_end(&mut report).map_err(trouble)?;
        if let Some((kind, rest)) = report.split_first() {
            return Err(match (*kind, <[u8; 4]>::try_from(rest)) {
                (NOT_EXECUTED, Ok(number)) => {
                    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(number));
                    let why = os_error_text(&error);
                    io::Error::new(error.kind(), format!("cannot run {line}: {why}"))
                }
                _ => trouble(io::Error::other(String::from_utf8_lossy(rest))),
            });
        }
        let outputs = [process.stdout(), process.stderr()].map(Arc::clone);
        // Otherwise the file system limits the size of the directory.
        let dir = (!self.mounted).then(|| self.dir.clone());
        let (group, counted) = (process.pid(), self.counted().map_err(trouble)?);
        resource_limits::watch_sandbox(group, outputs, self.owner, self.limits, counted, dir);
        Ok(process)
    }

    /// Returns the processes of the check, to limit their memory and number.
    fn counted(&self) -> io::Result<Counted> {
        Ok(match (&self.inside, self.uid) {
            (Some(inside), _) => {
                // The process table of the namespace, as seen by this process.
                let table = format!("/proc/{}/root/proc", inside.init.pid());
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let table = rustix::fs::open(table, flags, Mode::empty())?;
                let killer = inside.init.killer();
                Counted::Inside(table, Box::new(move || killer.kill()))
            }
            (None, Some(uid)) => Counted::User(uid),
            (None, None) => Counted::Group,
        })
    }

    /// Returns the command of the helper in front of a program.
    fn wrap(&self, command: &Command) -> Command {
        let mut wrapped = Command::new(self.support.own_program());
        wrapped.arg0("accio-grade").arg(RUN);
        let identity = match (self.uid, self.support.nested_uid()) {
            (Some(uid), _) => format!("user:{uid}"),
            (None, Some(uid)) => format!("nested:{uid}"),
            (None, None) => "same".to_owned(),
        };
        // Only with a user of its own does the limit count the processes of this check alone.
        let counts = identity != "same";
        let processes = if counts { self.limits.processes as u64 } else { 0 };
        let memory = self.limits.memory.saturating_mul(4 << 10);
        let file = self.limits.file;
        let denies = if self.support.denies_calls() { DENIES } else { "" };
        wrapped.args([
            identity,
            denies.to_owned(),
            processes.to_string(),
            file.to_string(),
            memory.to_string(),
        ]);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.env_clear();
        for (name, value) in env::vars_os() {
            let text = name.to_string_lossy();
            let is_allowed = VARIABLES.contains(&&*text)
                || PREFIXES.iter().any(|prefix| text.starts_with(prefix));
            if is_allowed {
                wrapped.env(&name, value);
            }
        }
        wrapper::inherit(&mut wrapped, command);
        wrapped
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // End the processes before their files are removed.
        self.inside = None;
        process::set_confined(self.owner, false);
        if let (Some(uid), false) = (self.uid, self.support.has_namespaces()) {
            resource_limits::kill_all_of_user(uid);
        }
        if self.mounted {
            mounts::remove(&self.dir);
        } else if self.support.has_namespaces() {
            // The kept files belong to the user of the tool again.
            let _ = take_back(&self.dir);
        }
    }
}

fn take_back(dir: &Path) -> io::Result<()> {
    std::os::unix::fs::lchown(dir, Some(0), Some(0))?;
    for entry in fs::read_dir(dir)?.flatten() {
        let kind = entry.file_type()?;
        match kind.is_dir() {
            true => take_back(&entry.path())?,
            false => std::os::unix::fs::lchown(entry.path(), Some(0), Some(0))?,
        }
    }
    Ok(())
}
