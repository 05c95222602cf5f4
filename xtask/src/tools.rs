//! Runs the tools, which are separate crates.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use accio_harness::cargo::cargo;

/// Arguments that are passed on to a tool.
#[derive(Debug, clap::Args)]
pub(crate) struct Forwarded {
    /// Arguments of the tool, see --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// A tool in its own crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    E2e,
    Grade,
    Torture,
    Bench,
    Cluster,
}

impl Tool {
    /// Returns the name of its crate and program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::E2e => "accio-e2e",
            Tool::Grade => "accio-grade",
            Tool::Torture => "accio-torture",
            Tool::Bench => "accio-bench",
            Tool::Cluster => "accio-cluster",
        }
    }

    /// Returns the command that builds the tool and runs it.
    pub(crate) fn command(self) -> Command {
        let mut command = cargo();
        // Do not pass --package, so that all tools share one build of their dependencies.
        command.args(["run", "--quiet", "--bin", self.name()]);
        if matches!(self, Tool::Grade | Tool::Bench) {
            command.args(["--profile", "tools"]);
        }
        command.arg("--");
        command
    }

    /// Replaces this process with the tool, so that signals reach it. Returns only if that fails.
    pub(crate) fn exec(self, first: &[&str], forwarded: &Forwarded) -> anyhow::Result<ExitCode> {
        Err(self.command().args(first).args(&forwarded.arguments).exec().into())
    }
}
