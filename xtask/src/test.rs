//! `cargo xtask test` and `cargo xtask test-e2e`.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use accio_harness::cargo::cargo;
use accio_harness::options::RunOptions;
use accio_harness::process;

use crate::crate_tests;
use crate::examples;
use crate::steps::{self, FinishedStep, Step, code};
use crate::tools::Tool;

/// All features except `store`, which adds fifty crates for HTTP and TLS. Test it with `cargo test
/// --package accio-server --all-features`. `store-core` covers the sink itself.
const FEATURES: &str = "accio-server/store-core,accio-proto/serde,accio-proto/testing,\
                        accio-proto/tracing,accio-tokio/object-store,accio-tokio/tls";
/// The programs that the scenarios run.
const OTHER_PROGRAMS: [&str; 2] = ["accio-server", "accio-client"];
const SERVER_S: &str = "server-s";
/// Titles of steps.
const SCENARIOS: &str = "scenarios";
const CHECKS: &str = "checks of the courses";
/// Leaves out the checks of large files, which need most of the CPU time.
const WITHOUT_LARGE_FILES: [&str; 2] = ["--without", "MiB"];
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
    let tools = own_directory()?;
    let copies = tempfile::tempdir_in(&tools)?;
    // The scenarios also run server-s without fast paths, which needs another build of it.
    if !build(&format!("{FEATURES},accio-simplified/diagnostics"), &[], &[SERVER_S])? {
        return Ok(ExitCode::FAILURE);
    }
    copy(SERVER_S, &tools, copies.path())?;
    let names = [Tool::E2e, Tool::Grade, Tool::Torture].map(Tool::name);
    let programs: Vec<_> = OTHER_PROGRAMS.into_iter().chain([SERVER_S]).chain(names).collect();
    if !build(FEATURES, &["--tests"], &programs)? {
        return Ok(ExitCode::FAILURE);
    }
    for program in OTHER_PROGRAMS {
        copy(program, &tools, copies.path())?;
    }
    let on_tokio = grade_examples(&tools);
    let built = Programs::Built { tools, programs: copies.path().to_owned() };
    // Filters apply to scenarios and checks only.
    let runs_all = options.run.filter.is_empty();
    let mut scenarios = if runs_all {
        let scenarios = options.command(Tool::E2e, &built);
        let mut steps = vec![Step { title: SCENARIOS.to_owned(), command: scenarios }];
        steps.extend(options.grade_commands(&built));
        steps
    } else if let Some(steps) = options.e2e_commands(&built)? {
        steps
    } else {
        return Ok(ExitCode::from(USAGE));
    };
    let faults = |kind| {
        let mut torture = built.tool(Tool::Torture);
        torture.args(["--quick", "--unprivileged", "--only", kind]);
        options.add_common_to(&mut torture, &built);
        torture
    };
    if runs_all {
        scenarios.push(on_tokio);
        scenarios.push(Step { title: "faults".to_owned(), command: faults("untimed") });
    }
    let tests = crate_tests::steps(FEATURES)?;
    // Most tests wait most of the time, so the scenarios run next to them.
    let (tests, scenarios) = thread::scope(|scope| {
        let scenarios = scope.spawn(|| steps::run(scenarios, 1, FinishedStep::print));
        (crate_tests::run(tests), scenarios.join())
    });
    let (code_of_tests, counts) = tests?;
    let scenarios = scenarios.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
    let mut worst = code_of_tests.max(scenarios);
    // These have the machine to themselves, because they measure how late something happens.
    if runs_all {
        worst = worst.max(code(&mut faults("timed"))?);
    }
    writeln!(io::stdout().lock(), "\ntests of the crates: {counts}")?;
    Ok(ExitCode::from(worst))
}

/// Returns the command that grades the programs on tokio, without large files; `cargo xtask examples`
/// runs all checks.
fn grade_examples(tools: &Path) -> Step {
    let mut command = Command::new(tools.join(Tool::Grade.name()));
    examples::name_programs(&mut command, &tools.join("examples"));
    command.args(WITHOUT_LARGE_FILES);
    Step { title: format!("{CHECKS}, on tokio"), command }
}

/// Builds programs of the workspace, the examples on tokio and `more`. Cargo builds a dependency again
/// for each set of its features, and the examples need those of the tests; so whatever is built with
/// the same features here shares its dependencies.
fn build(features: &str, more: &[&str], programs: &[&str]) -> io::Result<bool> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--features", features]).args(more);
    for program in programs {
        build.args(["--bin", program]);
    }
    for example in examples::ON_TOKIO {
        build.args(["--example", example]);
    }
    Ok(process::foreground(&mut build)?.success())
}

/// Copies a program from one directory to another.
fn copy(program: &str, from: &Path, to: &Path) -> io::Result<u64> {
    fs::copy(from.join(program), to.join(program))
}

/// Returns the directory that contains this program and, after [`build`], all others.
fn own_directory() -> io::Result<PathBuf> {
    let mut path = env::current_exe()?;
    path.pop();
    Ok(path)
}

/// The tools to run, and the programs that they test.
enum Programs {
    /// The tools are built when they start; they build the programs for release.
    Release,
    /// Both are built, in these directories.
    Built { tools: PathBuf, programs: PathBuf },
}

impl Programs {
    fn tool(&self, tool: Tool) -> Command {
        match self {
            Programs::Release => tool.command(),
            Programs::Built { tools, .. } => Command::new(tools.join(tool.name())),
        }
    }

    fn directory(&self) -> Option<&Path> {
        match self {
            Programs::Release => None,
            Programs::Built { programs, .. } => Some(programs),
        }
    }
}

/// Runs the scenarios, then grades our programs.
pub(crate) fn run_e2e(options: &OwnPrograms) -> anyhow::Result<ExitCode> {
    let Some(steps) = options.e2e_commands(&Programs::Release)? else {
        return Ok(ExitCode::from(USAGE));
    };
    let mut worst = 0;
    for mut step in steps {
        worst = worst.max(code(&mut step.command)?);
    }
    Ok(worst.into())
}

impl OwnPrograms {
    /// Returns the commands that run the scenarios and the checks. If none matches the filter,
    /// prints an error and returns `None`.
    fn e2e_commands(&self, programs: &Programs) -> anyhow::Result<Option<Vec<Step>>> {
        let filter = &self.run.filter;
        let mut steps = Vec::new();
        for (title, tool) in [(SCENARIOS, Tool::E2e), (CHECKS, Tool::Grade)] {
            // A filter may match only scenarios or only checks.
            if filter.is_empty() || self.run.list || self.matches_any(tool, programs)? {
                let title = title.to_owned();
                steps.push(Step { title, command: self.command(tool, programs) });
            }
        }
        if steps.is_empty() {
            let error = "no scenario and no check matches";
            writeln!(io::stderr().lock(), "ERROR: {error} {filter:?}: see --list")?;
            return Ok(None);
        }
        Ok(Some(steps))
    }

    /// Returns the commands that grade the programs in each dialect. After the handshake, all dialects
    /// are the same, so one of them has to do for large files; `cargo xtask test-e2e` sends them in all.
    fn grade_commands(&self, programs: &Programs) -> impl Iterator<Item = Step> {
        let dialects = [
            ("accio", &[][..]),
            ("direct", &WITHOUT_LARGE_FILES),
            ("confirm", &WITHOUT_LARGE_FILES),
        ];
        dialects.into_iter().map(|(dialect, without)| {
            let mut command = self.command(Tool::Grade, programs);
            command.args(["--handshake", dialect]).args(without);
            Step { title: format!("{CHECKS}, dialect {dialect}"), command }
        })
    }

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

    /// Returns whether the filter matches any entry of the tool's list.
    fn matches_any(&self, tool: Tool, programs: &Programs) -> anyhow::Result<bool> {
        let filter = self.run.filter.clone();
        let list = OwnPrograms { run: RunOptions { list: true, filter, ..Default::default() } };
        let output = process::output(list.command(tool, programs), b"", BUILD)?;
        Ok(!output.stdout.is_empty())
    }
}
