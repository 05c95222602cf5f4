//! The commands that create namespaces.

use std::process::Command;
use std::time::Duration;

use crate::verdict::Verdict;
use crate::{process, tools};

/// Time limit for `ip` and `nft` on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Runs `ip` with these arguments and this input.
pub(super) fn ip(arguments: &[&str], input: &str) -> Verdict<String> {
    let mut command = Command::new(tools::require("ip")?);
    command.args(arguments);
    let output = process::checked_output(command, input.as_bytes(), LIMIT)?;
    Ok(String::from_utf8_lossy(&output).into_owned())
}
