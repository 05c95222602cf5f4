//! `cargo xtask test-e2e`: the real programs on loopback, through named scenarios.
//!
//! A scenario is a plain function of a [`context::Context`]; it starts the programs under test (the
//! [`subject`]), plays the other end with raw sockets ([`peer`]) and ends with a
//! [`verdict::Verdict`]. The [`runner`] runs them side by side and tells people what came of them.

pub(crate) mod context;
pub(crate) mod engine;
pub(crate) mod guard;
pub(crate) mod lateness;
pub(crate) mod payload;
pub(crate) mod peer;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod runner;
pub(crate) mod scenarios;
mod servers;
pub(crate) mod subject;
pub(crate) mod verdict;

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Resource, Rlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::runner::{Options, Scenario};
use self::subject::Subject;
use crate::TROUBLE;
use crate::kit;
use crate::test::cargo;

/// The packages whose programs are tested.
const PACKAGES: [&str; 3] = ["accio-server", "accio-client", "accio-simplified"];
/// Descriptors one scenario of a thousand connections needs, and the others beside it.
const DESCRIPTORS: u64 = 8192;

/// The options of `cargo xtask test-e2e`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print the scenarios and what each shows, and the checks with points and rules; run none
    #[arg(long)]
    list: bool,
    /// Run only scenarios or checks whose name has this text (repeatable: any of them)
    #[arg(long, value_name = "TEXT")]
    pub(crate) filter: Vec<String>,
    /// Leave the files and outputs of failed scenarios or checks, and say where
    #[arg(long)]
    pub(crate) keep: bool,
    /// Working scenarios at a time; those that mostly wait run side by side anyway [default: one
    /// per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Make file contents, and what the proxy does, from this number [default: another one each run]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Test our own programs in this folder instead of building them
    #[arg(long, value_name = "DIR",
          conflicts_with_all = ["server", "client", "server_s", "subject", "submissions"])]
    pub(crate) bin_dir: Option<PathBuf>,
    #[command(flatten)]
    kit: kit::Options,
}

impl Arguments {
    /// Whether nothing is to be run.
    pub(crate) fn only_lists(&self) -> bool {
        self.list
    }
}

/// Builds the programs, runs the scenarios or the checks, says what came of them.
pub(crate) fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut out = anstream::stdout().lock();
    let wanted = |scenario: &&Scenario| {
        let filters = &arguments.filter;
        filters.is_empty() || filters.iter().any(|text| scenario.name.contains(text.as_str()))
    };
    let chosen: Vec<&'static Scenario> = scenarios::all().filter(wanted).collect();
    let checks = arguments.kit.chosen(&arguments.filter);
    // What means no scenario may mean checks.
    let grades = arguments.kit.are_given() || chosen.is_empty() && !checks.is_empty();
    if arguments.list {
        let width = chosen.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
        if !grades {
            for scenario in chosen {
                writeln!(out, "{:width$}  {}", scenario.name, scenario.about)?;
            }
            writeln!(out)?;
        }
        kit::Options::list(&checks, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if if grades { checks.is_empty() } else { chosen.is_empty() } {
        let what = if grades { "check" } else { "scenario" };
        writeln!(
            io::stderr().lock(),
            "ERROR: no {what} is meant by any of {:?}: see --list",
            arguments.filter
        )?;
        return Ok(ExitCode::from(2));
    }

    let bin = match &arguments.bin_dir {
        Some(dir) => std::path::absolute(dir)?,
        None if arguments.kit.is_foreign() => PathBuf::new(),
        None => match build()? {
            Some(bin) => bin,
            // Cargo has said why.
            None => return Ok(ExitCode::from(TROUBLE)),
        },
    };
    let dir = tempfile::Builder::new().prefix("accio-e2e-").tempdir().map_err(|error| {
        io::Error::other(format!("no folder to work in: {error}: name one with TMPDIR"))
    })?;
    end_all_when_interrupted(kit::namespace::remove_all, dir.path().to_owned())?;
    raise_descriptor_limit()?;
    lateness::start();

    let cores = thread::available_parallelism().map_or(2, usize::from);
    let jobs = arguments.jobs.map_or(cores, usize::from);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    if grades {
        let (bin_dir, keep) = (arguments.bin_dir.as_deref(), arguments.keep);
        let run = kit::Run { dir: dir.path(), jobs, seed, bin: &bin, bin_dir, keep };
        let code = arguments.kit.run(&checks, &run, &mut out);
        if keep && code.as_ref().is_ok_and(|code| *code != ExitCode::SUCCESS) {
            let _ = dir.keep();
        }
        return code;
    }
    let subject = Arc::new(Subject::own(&bin).map_err(io::Error::other)?);
    let options = Options { jobs, dir: dir.path().to_owned(), keep: arguments.keep, seed };
    let tally = runner::run(&subject, &chosen, &options, &mut out)?;
    if arguments.keep && tally.failed > 0 {
        let _ = dir.keep();
    }
    Ok(match tally {
        _ if tally.troubled > 0 => ExitCode::from(TROUBLE),
        _ if tally.failed > 0 => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// Builds the programs; where they are, or `None` when that failed.
pub(crate) fn build() -> io::Result<Option<PathBuf>> {
    let mut command = cargo();
    command.args(["build", "--release", "--bins"]);
    PACKAGES.iter().for_each(|package| {
        command.args(["--package", package]);
    });
    if !command.status()?.success() {
        return Ok(None);
    }
    // We are target/debug/xtask, or the like in another target folder.
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent);
    let target = target.ok_or_else(|| io::Error::other("this program is in no target folder"))?;
    Ok(Some(target.join("release")))
}

/// What is to be done when somebody stops us: first this, then the folder goes.
static LEFTOVERS: Mutex<Vec<Leftovers>> = Mutex::new(Vec::new());

struct Leftovers {
    first: fn(),
    dir: PathBuf,
}

/// When somebody stops us, nothing we started goes on, and no file of ours stays. `first` is called
/// when all processes are ended.
pub(crate) fn end_all_when_interrupted(first: fn(), dir: PathBuf) -> io::Result<()> {
    let mut leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
    leftovers.push(Leftovers { first, dir });
    if leftovers.len() > 1 {
        // Somebody watches already.
        return Ok(());
    }
    drop(leftovers);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::kill_all_groups(|| {
                let leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
                for Leftovers { first, dir } in leftovers.iter() {
                    first();
                    // Scenarios still write there for a moment; what cannot be removed stays.
                    let _ = (0..5).try_for_each(|_| match std::fs::remove_dir_all(dir) {
                        Ok(()) => Err(()),
                        Err(_) => Ok(()),
                    });
                }
                std::process::exit(128 + signal)
            })
        }
    });
    Ok(())
}

/// A thousand connections need more descriptors than many systems allow without being asked.
fn raise_descriptor_limit() -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        rustix::process::setrlimit(Resource::Nofile, raised)?;
    }
    Ok(())
}
