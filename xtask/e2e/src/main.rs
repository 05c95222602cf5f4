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
use std::process::ExitCode;
use std::sync::Arc;

use accio_harness::options::RunOptions;
use accio_harness::subject::{Subject, Template};
use accio_harness::work_dir::WorkDir;
use accio_harness::{TROUBLE, resource_limits, scheduling_delay};
use clap::Parser;

use self::runner::{Options, Scenario};

/// File descriptors for the scenario with a thousand connections and those that run at the same
/// time.
const DESCRIPTORS: u64 = 8192;

/// Run the real programs through the end-to-end scenarios
#[derive(Debug, Parser)]
#[command(name = "accio-e2e")]
struct Arguments {
    #[command(flatten)]
    run: RunOptions,
    /// Test another server, e.g. "./server {port} {dir}"
    #[arg(long, value_name = "COMMAND", requires = "server_flags")]
    server: Option<String>,
    /// The flags that this server has; scenarios that need others are skipped
    #[arg(long, value_name = "FLAGS", value_delimiter = ',', allow_hyphen_values = true)]
    server_flags: Vec<String>,
}

fn main() -> ExitCode {
    accio_harness::report::exit_code(run(&Arguments::parse()))
}

/// Builds the programs, runs the scenarios and prints the results.
fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = anstream::stdout().lock();
    let chosen: Vec<&'static Scenario> =
        scenarios::all().filter(|scenario| arguments.run.selects(scenario.name)).collect();
    if arguments.run.list {
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
            arguments.run.filter
        )?;
        return Ok(ExitCode::from(2));
    }

    let Some(bin) = arguments.run.programs()? else {
        // Cargo has printed the reason.
        return Ok(ExitCode::from(TROUBLE));
    };
    let mut dir = WorkDir::new("e2e", || ())?;
    resource_limits::raise_descriptor_limit(Some(DESCRIPTORS))?;
    scheduling_delay::start();

    let (jobs, seed) = (arguments.run.jobs(1), arguments.run.seed());
    let mut subject = Subject::own(&bin)?;
    if let Some(command) = &arguments.server {
        subject.server = Some(Template::parse(command)?.only_flags(&arguments.server_flags));
    }
    let subject = Arc::new(subject);
    let options = Options { jobs, dir: dir.path().to_owned(), keep: arguments.run.keep, seed };
    let tally = runner::run(&subject, &chosen, &options, &mut out)?;
    if arguments.run.keep && tally.failed > 0 {
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
