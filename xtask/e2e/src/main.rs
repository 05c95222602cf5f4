//! `cargo xtask test-e2e`: runs named scenarios with the real programs on the loopback interface.
//!
//! A scenario is a function of a [`Context`](accio_harness::context::Context). It starts the
//! programs under test, acts as the other side with raw sockets and returns a
//! [`Verdict`](accio_harness::verdict::Verdict). The [`runner`] runs scenarios concurrently and
//! prints their results.
#![forbid(unsafe_code)]

mod runner;
mod scenarios;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use accio_harness::subject::Subject;
use accio_harness::work_dir::WorkDir;
use accio_harness::{TROUBLE, cargo, resource_limits, scheduling_delay};
use clap::Parser;

use self::runner::{Options, Scenario};

/// File descriptors for the scenario with a thousand connections and those that run at the same
/// time.
const DESCRIPTORS: u64 = 8192;

/// Run the real programs through the end-to-end scenarios
#[derive(Debug, Parser)]
#[command(name = "accio-e2e")]
struct Arguments {
    /// List the scenarios instead of running them
    #[arg(long)]
    list: bool,
    /// Run only scenarios whose name contains this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    filter: Vec<String>,
    /// Keep the files and outputs of failed scenarios and print their path
    #[arg(long)]
    keep: bool,
    /// Number of concurrent scenarios that use the CPU; those that only wait all run at once
    /// [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Seed of file contents [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Test the programs in this folder instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    accio_harness::report::exit_code(run(&Arguments::parse()))
}

/// Builds the programs, runs the scenarios and prints the results.
fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = anstream::stdout().lock();
    let wanted = |scenario: &&Scenario| {
        let filters = &arguments.filter;
        filters.is_empty() || filters.iter().any(|text| scenario.name.contains(text.as_str()))
    };
    let chosen: Vec<&'static Scenario> = scenarios::all().filter(wanted).collect();
    if arguments.list {
        let width = chosen.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
        for scenario in chosen {
            writeln!(out, "{:width$}  {}", scenario.name, scenario.about)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if chosen.is_empty() {
        writeln!(
            io::stderr().lock(),
            "ERROR: no scenario matches {:?}: see --list",
            arguments.filter
        )?;
        return Ok(ExitCode::from(2));
    }

    let bin = match &arguments.bin_dir {
        Some(dir) => std::path::absolute(dir)?,
        None => match cargo::build()? {
            Some(bin) => bin,
            // Cargo has printed the reason.
            None => return Ok(ExitCode::from(TROUBLE)),
        },
    };
    let mut dir = WorkDir::new("e2e", || ())?;
    resource_limits::raise_descriptor_limit(Some(DESCRIPTORS))?;
    scheduling_delay::start();

    let cores = thread::available_parallelism().map_or(2, usize::from);
    let jobs = arguments.jobs.map_or(cores, usize::from);
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let subject = Arc::new(Subject::own(&bin)?);
    let options = Options { jobs, dir: dir.path().to_owned(), keep: arguments.keep, seed };
    let tally = runner::run(&subject, &chosen, &options, &mut out)?;
    if arguments.keep && tally.failed > 0 {
        dir.keep();
    }
    Ok(tally.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
