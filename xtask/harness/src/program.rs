//! Runs a program in the tests of its own crate.

use std::env;
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::process;
use super::verdict::Verdict;

/// Time limit for each step of a test.
pub const BOUND: Duration = Duration::from_secs(20);

/// Variables that change the behaviour or the output of our programs.
const VARIABLES: [&str; 6] =
    ["RUST_LOG", "NO_COLOR", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Prefixes of such variables.
const PREFIXES: [&str; 2] = ["ACCIO_", "AWS_"];

/// Returns a command that runs `program` without the variables of this process that could affect
/// it, in 100 columns and with `/dev/null` as its standard input.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if VARIABLES.contains(&&*text) || PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null()).env("COLUMNS", "100");
    command
}

/// Runs a command to its end, with an empty standard input, and returns its output.
pub fn run(command: Command) -> Verdict<Output> {
    process::output(command, b"", BOUND)
}
