//! `cargo xtask COMMAND`: the project's development commands. The larger tools are separate crates
//! in subdirectories, which cargo builds and runs on demand.
#![forbid(unsafe_code)]

mod api;
mod crate_tests;
mod dist;
mod examples;
mod feature_costs;
mod features;
mod release;
mod semver;
mod steps;
mod test;
mod test_portable;
mod tools;

use std::process::ExitCode;

use accio_harness::report::exit_code;
use clap::Parser;

use self::test::OwnPrograms;
use self::tools::{Forwarded, Tool};

/// Development commands of the project
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Run all tests, and a part of the fault injection
    Test(OwnPrograms),
    /// Test library and programs without what only Linux has
    TestPortable,
    /// Run the end-to-end scenarios on our programs, then grade them
    TestE2e(OwnPrograms),
    /// Grade any implementation with the courses' checks
    #[command(disable_help_flag = true)]
    Grade(Forwarded),
    /// Run a misbehaving server to test clients
    #[command(disable_help_flag = true)]
    BrokenServer(Forwarded),
    /// Run a correct server that prints connections and the start of their content
    #[command(disable_help_flag = true)]
    DemoServer(Forwarded),
    /// Inject faults: system calls, kills, power loss, full disks, lossy networks
    #[command(disable_help_flag = true)]
    Torture(Forwarded),
    /// Kill parts of a real cluster during uploads, then check each upload
    #[command(disable_help_flag = true)]
    TestCluster(Forwarded),
    /// Measure throughput, CPU time and memory, and compare with other installed programs
    #[command(disable_help_flag = true)]
    Bench(Forwarded),
    /// Package the programs: tarball, Debian and RPM package, container image
    Dist(dist::Arguments),
    /// Prepare a release: set the version, date the changelog, write the message of the tag
    Release(release::Arguments),
    /// Compare the public items of the libraries with snapshots and an earlier revision
    Api(api::Arguments),
    /// Check that each set of features compiles, and the dependencies without features
    Features {
        /// Print the number of crates and the time to compile them, for some sets
        #[arg(long)]
        costs: bool,
    },
    /// Test the examples that need further crates: axum, mio, SQLite
    Examples,
}

fn main() -> ExitCode {
    exit_code(match Command::parse() {
        Command::Test(options) => test::run(&options),
        Command::TestPortable => test_portable::run(),
        Command::TestE2e(options) => test::run_e2e(&options),
        Command::Grade(forwarded) => Tool::Grade.exec(&[], &forwarded),
        Command::BrokenServer(forwarded) => Tool::Grade.exec(&["broken"], &forwarded),
        Command::DemoServer(forwarded) => Tool::Grade.exec(&["demo"], &forwarded),
        Command::Torture(forwarded) => Tool::Torture.exec(&[], &forwarded),
        Command::TestCluster(forwarded) => Tool::Cluster.exec(&[], &forwarded),
        Command::Bench(forwarded) => Tool::Bench.exec(&[], &forwarded),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Api(arguments) => api::run(&arguments),
        Command::Features { costs: false } => features::run(),
        Command::Features { costs: true } => feature_costs::run(),
        Command::Examples => examples::run(),
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
