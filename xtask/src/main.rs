//! The project's own commands: `cargo xtask COMMAND`.
#![forbid(unsafe_code)]

mod e2e;
mod kit;
mod test;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

/// The project's own commands
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Run every test: the crates' own, then the end-to-end scenarios
    Test(e2e::Arguments),
    /// Run the real programs through the end-to-end scenarios
    TestE2e(e2e::Arguments),
}

/// The exit code of a failure that says nothing about what was tested.
const TROUBLE: u8 = 3;

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Test(arguments) => test::run(&arguments),
        Command::TestE2e(arguments) => e2e::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        // Nothing is left to do about a closed stderr.
        let _ = writeln!(io::stderr().lock(), "ERROR: {error}");
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
