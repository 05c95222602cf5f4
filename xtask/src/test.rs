//! `cargo xtask test`: every test there is.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use crate::{e2e, torture};

/// Runs the crates' tests, the end-to-end scenarios and a bounded share of the torture, each
/// whatever came of the others.
pub(crate) fn run(arguments: &e2e::Arguments) -> io::Result<ExitCode> {
    let crates = if arguments.only_lists() {
        true
    } else {
        cargo().args(["test", "--workspace", "--all-features"]).status()?.success()
    };
    let scenarios = e2e::run(arguments)?;
    let torture = torture::run_bounded(arguments)?;
    let worst = if scenarios == ExitCode::SUCCESS { torture } else { scenarios };
    Ok(if crates { worst } else { ExitCode::FAILURE })
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
