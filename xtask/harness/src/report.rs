//! Counts results and explains failures.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::context::Context;
use super::verdict::Stop;
use super::{TROUBLE, os_error_text, payload};

/// Number of lines of an output shown with a failure.
const TAIL: usize = 8;
/// Number of processes whose output is shown with a failure.
const PROCESSES: usize = 4;

/// The number of scenarios by result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Scenarios whose expectations were all met.
    pub passed: usize,
    /// Faults of the subject and failures of the test itself.
    pub failed: usize,
    /// Scenarios that cannot run on this machine.
    pub skipped: usize,
    /// The part of `failed` that is due to the test itself.
    pub troubled: usize,
}

/// Describes a failure with the last output of its processes.
pub fn explain(name: &str, about: &str, stop: &Stop, context: &Context) -> String {
    let mut text = format!("\n{name}: {about}\n");
    // Writing to a string does not fail.
    let _ = match stop {
        Stop::Fault(fault) => {
            let places: String =
                fault.during.iter().rev().map(|place| format!("  during    {place}\n")).collect();
            write!(text, "{places}  expected  {}\n  actual    {}\n", fault.expected, fault.actual)
        }
        Stop::Trouble(why) => writeln!(text, "  the test itself failed: {why}"),
        Stop::Skip(why) => writeln!(text, "  skipped: {why}"),
    };
    let logs = context.logs();
    let with_output = logs.iter().rev().filter(|log| !log.stderr.text().is_empty()).take(PROCESSES);
    for log in with_output {
        let stderr = log.stderr.text();
        let lines: Vec<&str> = stderr.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        let _ = writeln!(text, "  stderr of {}", log.command);
        for line in tail {
            let _ = writeln!(text, "    | {}", payload::escape_line(line));
        }
    }
    text
}

/// Removes a scenario's directory, or adds the outputs of its processes if the directory is kept.
pub fn tidy(context: &Context, failed: bool, keep: bool) -> io::Result<()> {
    if !(failed && keep) {
        // An abandoned scenario may still write there; the run's directory is removed in the end.
        let _ = fs::remove_dir_all(context.dir());
        return Ok(());
    }
    for (number, log) in context.logs().iter().enumerate() {
        let text = format!(
            "$ {}\n--- stdout\n{}\n--- stderr\n{}\n",
            log.command,
            log.stdout.text(),
            log.stderr.text()
        );
        fs::write(context.dir().join(format!("process-{number}.log")), text)?;
    }
    Ok(())
}

impl Tally {
    /// Returns 0 if all passed, 1 if some failed, and 3 if a test itself failed.
    pub fn exit_code(self) -> ExitCode {
        match self {
            _ if self.troubled > 0 => ExitCode::from(TROUBLE),
            _ if self.failed > 0 => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        }
    }
}

/// Returns the exit code of a tool, and prints the error, if any.
pub fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        let kind = error.downcast_ref().map(io::Error::kind);
        // A closed stdout is not an error: the reader has seen enough.
        if kind != Some(io::ErrorKind::BrokenPipe) {
            // If stderr is closed, the error cannot be printed.
            let _ = writeln!(io::stderr().lock(), "ERROR: {}", text(&error));
        }
        ExitCode::from(TROUBLE)
    })
}

/// Returns the text of the error and its causes, without the numbers of system errors.
fn text(error: &anyhow::Error) -> String {
    let texts = error.chain().map(|cause| match cause.downcast_ref() {
        Some(cause) => os_error_text(cause),
        None => cause.to_string(),
    });
    texts.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn errors_contain_their_causes_without_numbers() {
        let missing = Err::<(), _>(io::Error::from_raw_os_error(2)).context("the results");
        let expected = "the results: no such file or directory";
        assert_eq!(text(&missing.unwrap_err()), expected);
    }
}
