//! `cargo xtask test`: every test there is.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use crate::e2e;

/// Runs the crates' tests, then the end-to-end scenarios whatever came of the former.
pub(crate) fn run(arguments: &e2e::Arguments) -> io::Result<ExitCode> {
    let crates = if arguments.only_lists() {
        true
    } else {
        cargo().args(["test", "--workspace", "--all-features"]).status()?.success()
    };
    let scenarios = e2e::run(arguments)?;
    Ok(if crates { scenarios } else { ExitCode::FAILURE })
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
