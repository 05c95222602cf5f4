//! Replaces the sandbox on systems without namespaces: programs run as the user of this process.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use super::namespace::Namespace;
use super::process::{Input, Process};
use super::resource_limits::{self, Limits};
use super::verdict::Verdict;
use super::wrapper;

/// The files that the programs of a check may see, in addition to the system's.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Readable directories and files.
    pub readable: Vec<PathBuf>,
    /// Readable and writable directories.
    pub writable: Vec<PathBuf>,
    /// Directories to hide: other submissions, results, reports.
    pub hidden: Vec<PathBuf>,
}

/// The kind of sandbox that this machine permits: none.
#[derive(Debug, Default)]
pub struct Support;

/// The programs of one check.
#[derive(Debug)]
pub struct Sandbox {
    owner: usize,
    limits: Limits,
}

/// Returns `None`: this system needs no helper.
pub fn helper() -> Option<ExitCode> {
    None
}

/// Finds what is possible: nothing.
pub fn prepare() -> Support {
    Support
}

impl Support {
    /// Returns the active protections, for reports.
    pub fn protections(&self) -> Vec<String> {
        let no_namespaces = "no namespaces (this system has none)";
        let limits = "limits on memory, processes, output, time";
        [no_namespaces, "same user", limits].map(str::to_owned).to_vec()
    }
}

impl Sandbox {
    /// Prepares the programs of a check.
    pub fn enter(
        _support: &Arc<Support>,
        _files: &Files,
        _dir: &Path,
        owner: usize,
        limits: Limits,
        _keeps_files: bool,
    ) -> Verdict<Sandbox> {
        Ok(Sandbox { owner, limits })
    }

    /// Does nothing: programs run as the user of this process.
    pub fn give(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Starts a program of the check, in `network` if that is given, with an empty standard input.
    pub fn spawn(&self, command: &Command, network: Option<&Namespace>) -> io::Result<Process> {
        let mut copy = Command::new(command.get_program());
        copy.args(command.get_args());
        wrapper::inherit(&mut copy, command);
        if let Some(network) = network {
            copy = network.wrap(&copy);
        }
        let process = Process::spawn(copy, self.owner, Input::Null)?;
        let outputs = [process.stdout(), process.stderr()].map(Arc::clone);
        resource_limits::watch(process.pid(), outputs, self.owner, self.limits);
        Ok(process)
    }
}
