//! `cargo xtask test`: every test there is.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use crate::e2e;

/// The options of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    e2e: e2e::Arguments,
}

/// Runs the crates' tests, then the end-to-end scenarios whatever came of the former.
pub(crate) fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    let crates = if arguments.e2e.only_lists() {
        true
    } else {
        cargo().args(["test", "--workspace", "--all-features"]).status()?.success()
    };
    let scenarios = e2e::run(&arguments.e2e)?;
    Ok(if crates { scenarios } else { ExitCode::FAILURE })
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
