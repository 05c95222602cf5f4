//! The project's own commands: `cargo xtask COMMAND`.
#![forbid(unsafe_code)]

mod api;
mod bench;
mod broken_server;
mod cluster;
mod demo_server;
mod dist;
mod e2e;
mod features;
mod kit;
mod test;
mod test_portable;
mod torture;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

/// The project's own commands
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Run every test: the crates' own, then the end-to-end scenarios
    Test(e2e::Arguments),
    /// Run the library's tests without what only Linux has: epoll, splice and the like
    TestPortable,
    /// Run the real programs through the end-to-end scenarios, or grade any by the courses' checks
    TestE2e(e2e::Arguments),
    /// Make everything fail that can: system calls, processes, disks, networks
    Torture(torture::Arguments),
    /// Kill receivers and store nodes of a real cluster, and see what became of every upload
    TestCluster(cluster::Arguments),
    /// Measure throughput, CPU time and memory, side by side with whatever else is installed
    Bench(bench::Arguments),
    /// Pack the programs: a tarball and a Debian package
    Dist(dist::Arguments),
    /// Compare the library's public items with those written down, or write them down anew
    Api(api::Arguments),
    /// Check each set of features by itself, and what the smallest brings
    Features,
    /// Run a server that misbehaves, to try a client on
    #[command(after_help = broken_server::names())]
    BrokenServer(broken_server::Arguments),
    /// Run the good server, and see who connects and what comes
    DemoServer(demo_server::Arguments),
}

/// The exit code of a failure that says nothing about what was tested.
const TROUBLE: u8 = 3;

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Test(arguments) => test::run(&arguments),
        Command::TestPortable => test_portable::run(),
        Command::TestE2e(arguments) => e2e::run(&arguments),
        Command::Torture(arguments) => torture::run(&arguments),
        Command::TestCluster(arguments) => cluster::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Api(arguments) => api::run(&arguments),
        Command::Features => features::run(),
        Command::BrokenServer(arguments) => broken_server::run(&arguments),
        Command::DemoServer(arguments) => demo_server::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        // Whoever read our output has seen enough of it. Nothing is left to do about a closed stderr.
        if error.kind() != io::ErrorKind::BrokenPipe {
            let _ = writeln!(io::stderr().lock(), "ERROR: {error}");
        }
        ExitCode::from(TROUBLE)
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
}
