//! The options of `accio-grade`.

mod grading;
mod outputs;
mod preflight;
mod selection;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;

use self::outputs::Outputs;
use super::check::Check;
use super::checks;
use super::rubric;
use super::settings::Settings;
use super::trial::Network;
use accio_harness::options::RunOptions;
use accio_harness::peer::Dialect;
use accio_harness::resource_limits::{self, Limits};
use accio_harness::sandbox::{self, Support};
use accio_harness::work_dir::WorkDir;
use accio_harness::{TROUBLE, cores, namespace, scheduling_delay};

/// The exit code of an invalid command line.
const USAGE: u8 = 2;
/// File descriptors for all concurrent checks.
const DESCRIPTORS: u64 = 8192;
/// The dialect of the courses since 2022.
const COURSES: Dialect = Dialect::Confirm;
/// The default seed: always the same, so that nothing in a check depends on chance.
const SEED: u64 = 1;
/// Default memory limit of a check's programs, in MiB.
const MEMORY: u64 = 1024;
/// Default limit of a check's files, in MiB.
const DISK: u64 = 1024;

/// The options of `accio-grade`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Grade the programs in this directory; print a summary first
    #[arg(value_name = "DIR",
          conflicts_with_all = ["bin_dir", "subject", "submissions", "server", "client", "server_s"])]
    directory: Option<PathBuf>,
    #[command(flatten)]
    run: RunOptions,
    /// Grade this server: a command with {port} and {dir}
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "bin_dir")]
    server: Option<String>,
    /// Grade this client: a command with {host}, {port} and {file}
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "bin_dir")]
    client: Option<String>,
    /// Grade this server-s: a command with {port}
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "bin_dir")]
    server_s: Option<String>,
    /// Grade the programs in this directory
    ///
    /// They are named client, server and server-s, and end in .py, .pl, .rb or .js or are compiled.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["bin_dir", "server", "client", "server_s"])]
    subject: Option<PathBuf>,
    /// Grade the programs in each subdirectory of this directory
    #[arg(long, value_name = "DIR",
          conflicts_with_all = ["bin_dir", "subject", "server", "client", "server_s", "gradescope"])]
    submissions: Option<PathBuf>,
    /// Number of submissions to grade at once [default: four per core]
    #[arg(long, value_name = "N", requires = "submissions",
          value_parser = clap::value_parser!(u16).range(1..))]
    at_once: Option<u16>,
    /// Directory for each submission's reports
    #[arg(long, value_name = "DIR", requires = "submissions", default_value = "accio-results")]
    results: PathBuf,
    /// Dialect of the programs [default: that of DIR, or confirm]
    #[arg(long, value_name = "DIALECT", value_parser = dialect)]
    handshake: Option<Dialect>,
    /// Working directory of the programs [default: a new directory for each]
    #[arg(long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Memory limit of a check's programs, in MiB
    #[arg(long, value_name = "MIB", default_value_t = MEMORY,
          value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    memory: u64,
    /// Limit of a check's files, in MiB
    #[arg(long, value_name = "MIB", default_value_t = DISK,
          value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    disk: u64,
    /// Emulate delay and loss
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Network::Auto)]
    network: Network,
    /// Do not build submissions that have a CMakeLists.txt or Makefile
    #[arg(long)]
    no_build: bool,
    /// Leave out checks with this text in id or description (repeatable)
    #[arg(long, value_name = "TEXT")]
    without: Vec<String>,
    /// Allow server-s to print lines at its start, before the counts
    #[arg(long)]
    allow_start_up_lines: bool,
    /// Do not repeat failed checks
    #[arg(long)]
    no_retry: bool,
    /// Grade the repository: commits, README, remarks on the source
    #[arg(long)]
    repository_points: bool,
    /// CSV file with the points of each check that counts
    #[arg(long, value_name = "FILE")]
    rubric: Option<PathBuf>,
    /// Print the points of each check as CSV, for --rubric
    #[arg(long)]
    print_rubric: bool,
    /// Grade only submissions without complete results
    #[arg(long, requires = "submissions")]
    resume: bool,
    /// Grade only submissions whose files have changed
    #[arg(long, requires = "submissions", conflicts_with = "resume")]
    changed: bool,
    #[command(flatten)]
    outputs: Outputs,
}

/// The settings of a run.
#[derive(Debug)]
pub(crate) struct RunSettings<'a> {
    /// The directory for the checks' files.
    pub(crate) dir: &'a Path,
    /// The seed of contents.
    pub(crate) seed: u64,
    /// The directory of our own programs.
    pub(crate) bin: &'a Path,
    /// How programs can be confined on this machine.
    pub(crate) support: Arc<Support>,
}

impl Options {
    /// Grades the selected programs, or our own by default.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut out = anstream::stdout().lock();
        let chosen = match self.chosen() {
            Ok(chosen) => chosen,
            Err(why) => {
                writeln!(io::stderr().lock(), "ERROR: {why:#}")?;
                return Ok(ExitCode::from(USAGE));
            }
        };
        if chosen.is_empty() {
            writeln!(
                io::stderr().lock(),
                "ERROR: no check matches {}: --list alone prints all checks",
                self.selection()
            )?;
            return Ok(ExitCode::from(USAGE));
        }
        if self.print_rubric {
            rubric::print(&chosen, &mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.run.list {
            list(&chosen, &mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
        let bin = match self.is_third_party() {
            true => Some(PathBuf::new()),
            false => self.run.programs()?,
        };
        let Some(bin) = bin else {
            // Cargo has printed the reason.
            return Ok(ExitCode::from(TROUBLE));
        };
        // While this process has one thread.
        let support = Arc::new(sandbox::prepare());
        let mut dir = WorkDir::new("grade", namespace::remove_all)?;
        resource_limits::raise_descriptor_limit(Some(DESCRIPTORS))?;
        scheduling_delay::start();
        if let Some(jobs) = self.run.jobs {
            cores::set_places(usize::from(jobs));
        }
        let run = RunSettings {
            dir: dir.path(),
            seed: self.run.seed.unwrap_or(SEED),
            bin: &bin,
            support,
        };
        let code = self.grade(&chosen, &run, &mut out);
        if self.run.keep && code.as_ref().is_ok_and(|code| *code != ExitCode::SUCCESS) {
            dir.keep();
        }
        code
    }

    /// Returns whether to grade other programs than our own.
    fn is_third_party(&self) -> bool {
        self.server.is_some()
            || self.client.is_some()
            || self.server_s.is_some()
            || self.subject().is_some()
            || self.submissions.is_some()
    }

    /// Returns the directory of the only submission.
    fn subject(&self) -> Option<&PathBuf> {
        self.directory.as_ref().or(self.subject.as_ref())
    }

    /// Returns the checks selected by --rubric, --filter and --without.
    fn chosen(&self) -> anyhow::Result<Vec<&'static Check>> {
        let all = match &self.rubric {
            Some(path) => rubric::read(path)?,
            None => checks::all().collect(),
        };
        let filter = &self.run.filter;
        let named = |check: &Check, texts: &[String]| {
            texts.iter().any(|text| checks::is_selected(check, text))
        };
        let means = |check: &&Check| {
            (filter.is_empty() || named(check, filter)) && !named(check, &self.without)
        };
        Ok(all.into_iter().filter(means).collect())
    }

    /// Returns the options that select checks, for an error.
    fn selection(&self) -> String {
        let filters = self.run.filter.iter().map(|text| format!("--filter {text:?}"));
        let without = self.without.iter().map(|text| format!("--without {text:?}"));
        let rubric = self.rubric.iter().map(|path| format!("--rubric {path:?}"));
        filters.chain(without).chain(rubric).collect::<Vec<_>>().join(" ")
    }

    fn settings(&self, run: &RunSettings<'_>, dir: PathBuf) -> Settings {
        Settings {
            seed: run.seed,
            network: self.network,
            limits: Limits {
                memory: self.memory << 10,
                disk: self.disk << 20,
                ..Limits::default()
            },
            // Programs are started from other directories.
            workdir: self.workdir.as_ref().and_then(|dir| std::path::absolute(dir).ok()),
            dir,
            may_announce: self.allow_start_up_lines,
            retry: !self.no_retry,
            keep: self.run.keep,
            repeat: self.repeat(),
            repository_points: self.repository_points,
            support: Arc::clone(&run.support),
            hidden: self.hidden(),
        }
    }
}

/// Prints the checks with their points and rules.
fn list(chosen: &[&'static Check], out: &mut impl Write) -> io::Result<()> {
    for check in chosen {
        let points = match check.points {
            0 => "-".to_owned(),
            points => points.to_string(),
        };
        let graded = if check.run.is_none() { " (not graded here)" } else { "" };
        writeln!(out, "{:25} {points:>3}  {}{graded}", check.id, check.about)?;
        writeln!(out, "{:30} rule: {}", "", check.rule)?;
    }
    Ok(())
}

/// Parses the name of a dialect.
pub(crate) fn dialect(text: &str) -> anyhow::Result<Dialect> {
    let named = Dialect::ALL.into_iter().find(|dialect| dialect.name() == text);
    named.context("must be direct, accio or confirm")
}
