//! `cargo xtask test`: every test there is.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use crate::{e2e, torture};

/// All but `store`, whose HTTP and TLS are fifty crates more: its tests are a command of their own,
/// `cargo test --package accio-server --all-features`. The sink itself is tested here.
const FEATURES: &str = "accio-server/proxy-protocol,accio-server/store-core";

/// Runs the crates' tests, the end-to-end scenarios and a bounded share of the torture, each
/// whatever came of the others.
pub(crate) fn run(arguments: &e2e::Arguments) -> io::Result<ExitCode> {
    let crates = if arguments.only_lists() {
        true
    } else {
        cargo().args(["test", "--workspace", "--features", FEATURES]).status()?.success()
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
