//! Commands that are run to their end.

use std::borrow::BorrowMut;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use super::{Input, NO_OWNER, Process, Streams};
use crate::verdict::{Stop, Verdict};

/// Runs a command with `input` and returns its complete output, or an error if it does not end
/// within `limit`.
pub fn output(
    mut command: impl BorrowMut<Command>,
    input: &[u8],
    limit: Duration,
) -> Verdict<Output> {
    let command = command.borrow_mut();
    let mut process =
        Process::start(command, NO_OWNER, Streams::Captured(Input::Piped, usize::MAX))?;
    if let Some(mut stdin) = process.take_input() {
        // If the command does not read its input, its exit status and output tell the reason.
        let _ = stdin.write_all(input);
    }
    let exit = process.wait(limit).map_err(Stop::into_trouble)?;
    let (stdout, stderr) = (process.stdout.bytes(), process.stderr.bytes());
    Ok(Output { status: exit.status, stdout, stderr })
}

/// Runs a command that must succeed and returns its output to stdout. The error contains its output
/// to stderr.
pub fn checked_output(command: Command, input: &[u8], limit: Duration) -> Verdict<Vec<u8>> {
    let name = Path::new(command.get_program()).to_string_lossy().into_owned();
    let output = output(command, input, limit)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
    Err(Stop::Trouble(format!("{name}: {text}")))
}

/// Runs a command in the group of this process, so that Ctrl-C in a terminal reaches it, too.
pub fn foreground(command: &mut Command) -> io::Result<ExitStatus> {
    command.status()
}

/// Runs a command to its end without a time limit and without starting a thread.
pub fn plain_output(command: &mut Command) -> io::Result<Output> {
    command.output()
}
