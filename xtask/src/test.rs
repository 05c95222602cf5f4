//! `cargo xtask test` and `cargo xtask test-e2e`.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use accio_harness::TROUBLE;
use accio_harness::cargo::cargo;
use accio_harness::options::RunOptions;
use accio_harness::process;

use crate::tools::Tool;

/// All features except `store`, which adds fifty crates for HTTP and TLS. Test it with `cargo test
/// --package accio-server --all-features`. `store-core` covers the sink itself.
const FEATURES: &str = "accio-server/store-core";
/// Time limit to build a tool.
const BUILD: Duration = Duration::from_secs(1800);
/// The exit code of an error in the command line.
const USAGE: u8 = 2;

/// The options for tests of our own programs.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct OwnPrograms {
    #[command(flatten)]
    run: RunOptions,
}

/// Runs the crates' tests, the end-to-end tests and a bounded part of the fault injection. Each
/// runs even if the others fail.
pub(crate) fn run(options: &OwnPrograms) -> anyhow::Result<ExitCode> {
    if options.run.list {
        return run_e2e(options);
    }
    if !build_everything(FEATURES)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--features", FEATURES]);
    let crates = process::foreground(&mut tests)?.success();
    // The scenarios also run server-s without fast paths.
    if !build_everything(&format!("{FEATURES},accio-simplified/diagnostics"))? {
        return Ok(ExitCode::FAILURE);
    }
    let built = Programs::Built(own_directory()?);
    let mut worst = if crates { 0 } else { 1 };
    worst = worst.max(e2e(options, &built)?);
    // Filters apply to scenarios and checks only.
    if options.run.filter.is_empty() {
        let mut torture = built.tool(Tool::Torture);
        torture.args(["--quick", "--unprivileged"]);
        options.add_common_to(&mut torture, &built);
        worst = worst.max(code(&mut torture)?);
    }
    Ok(ExitCode::from(if crates { worst } else { 1 }))
}

/// Builds all programs, tools and tests at once. Cargo builds a dependency again for each set of
/// its features, so separate builds would take twice as long.
fn build_everything(features: &str) -> io::Result<bool> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--all-targets", "--features", features]);
    Ok(process::foreground(&mut build)?.success())
}

/// Returns the directory that contains this program and, after [`build_everything`], all others.
fn own_directory() -> io::Result<PathBuf> {
    let mut path = env::current_exe()?;
    path.pop();
    Ok(path)
}

/// The tools to run, and the programs that they test.
enum Programs {
    /// The tools are built when they start; they build the programs for release.
    Release,
    /// Both are in this directory.
    Built(PathBuf),
}

impl Programs {
    fn tool(&self, tool: Tool) -> Command {
        match self {
            Programs::Release => tool.command(),
            Programs::Built(directory) => Command::new(directory.join(tool.name())),
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Programs::Release => None,
            Programs::Built(directory) => Some(directory),
        }
    }
}

/// Runs the scenarios, then grades our programs.
pub(crate) fn run_e2e(options: &OwnPrograms) -> anyhow::Result<ExitCode> {
    Ok(e2e(options, &Programs::Release)?.into())
}

fn e2e(options: &OwnPrograms, programs: &Programs) -> anyhow::Result<u8> {
    let mut tools = vec![Tool::E2e, Tool::Grade];
    if !options.run.filter.is_empty() && !options.run.list {
        // A filter may match only scenarios or only checks.
        let mut matching = Vec::new();
        for tool in tools {
            if options.matches_any(tool, programs)? {
                matching.push(tool);
            }
        }
        tools = matching;
        if tools.is_empty() {
            let filter = &options.run.filter;
            let error = "no scenario and no check matches";
            writeln!(io::stderr().lock(), "ERROR: {error} {filter:?}: see --list")?;
            return Ok(USAGE);
        }
    }
    let mut worst = 0;
    for tool in tools {
        worst = worst.max(code(&mut options.command(tool, programs))?);
    }
    Ok(worst)
}

impl OwnPrograms {
    fn command(&self, tool: Tool, programs: &Programs) -> Command {
        let mut command = programs.tool(tool);
        command.args(self.run.list.then_some("--list"));
        for text in &self.run.filter {
            command.arg("--filter").arg(text);
        }
        self.add_common_to(&mut command, programs);
        command
    }

    /// Adds the options that the fault injection has, too.
    fn add_common_to(&self, command: &mut Command, programs: &Programs) {
        self.run.add_to(command);
        if let (None, Some(directory)) = (&self.run.bin_dir, programs.directory()) {
            command.arg("--bin-dir").arg(directory);
        }
    }

    /// Whether the filter matches any entry of the tool's list.
    fn matches_any(&self, tool: Tool, programs: &Programs) -> anyhow::Result<bool> {
        let filter = self.run.filter.clone();
        let list = OwnPrograms { run: RunOptions { list: true, filter, ..Default::default() } };
        let output = process::output(list.command(tool, programs), b"", BUILD)?;
        Ok(!output.stdout.is_empty())
    }
}

/// Runs a tool and returns its exit code.
fn code(command: &mut Command) -> io::Result<u8> {
    let code = process::foreground(command)?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(TROUBLE))
}
