//! The project's own commands: `cargo xtask COMMAND`. The large ones are crates of their own below
//! this folder; cargo builds and runs them when they are asked for.
#![forbid(unsafe_code)]

mod api;
mod dist;
mod features;
mod test;
mod test_portable;
mod tools;

use std::process::ExitCode;

use accio_harness::report::exit_code;
use clap::Parser;

use self::test::OwnPrograms;
use self::tools::{Forwarded, Tool};

/// The project's own commands
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Run every test: the crates' own, the end-to-end tests, a share of the torture
    Test(OwnPrograms),
    /// Run the library's tests without what only Linux has: epoll, splice and the like
    TestPortable,
    /// Run the end-to-end scenarios on our programs, then grade them by the courses' checks
    TestE2e(OwnPrograms),
    /// Grade any implementation by the courses' checks
    #[command(disable_help_flag = true)]
    Grade(Forwarded),
    /// Run a server that misbehaves, to try a client on
    #[command(disable_help_flag = true)]
    BrokenServer(Forwarded),
    /// Run the good server, and see who connects and what comes
    #[command(disable_help_flag = true)]
    DemoServer(Forwarded),
    /// Make everything fail that can: system calls, processes, disks, networks
    #[command(disable_help_flag = true)]
    Torture(Forwarded),
    /// Kill receivers and store nodes of a real cluster, and see what became of every upload
    #[command(disable_help_flag = true)]
    TestCluster(Forwarded),
    /// Measure throughput, CPU time and memory, side by side with whatever else is installed
    #[command(disable_help_flag = true)]
    Bench(Forwarded),
    /// Pack the programs: a tarball and a Debian package
    Dist(dist::Arguments),
    /// Compare the library's public items with those written down, or write them down anew
    Api(api::Arguments),
    /// Check each set of features by itself, and what the smallest brings
    Features,
}

fn main() -> ExitCode {
    exit_code(match Command::parse() {
        Command::Test(options) => test::run(&options),
        Command::TestPortable => test_portable::run(),
        Command::TestE2e(options) => test::run_e2e(&options),
        Command::Grade(forwarded) => Tool::Grade.become_it(&[], &forwarded),
        Command::BrokenServer(forwarded) => Tool::Grade.become_it(&["broken"], &forwarded),
        Command::DemoServer(forwarded) => Tool::Grade.become_it(&["demo"], &forwarded),
        Command::Torture(forwarded) => Tool::Torture.become_it(&[], &forwarded),
        Command::TestCluster(forwarded) => Tool::Cluster.become_it(&[], &forwarded),
        Command::Bench(forwarded) => Tool::Bench.become_it(&[], &forwarded),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Api(arguments) => api::run(&arguments),
        Command::Features => features::run(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Command::command().debug_assert();
    }

    #[test]
    fn options_of_the_tools_are_forwarded() {
        for (line, expected) in [
            (&["xtask", "bench", "--help"][..], &["--help"][..]),
            (&["xtask", "bench", "--only", "a", "-x"], &["--only", "a", "-x"]),
        ] {
            let Command::Bench(forwarded) = Command::parse_from(line) else { panic!("{line:?}") };
            assert_eq!(forwarded.arguments, expected);
        }
    }
}
