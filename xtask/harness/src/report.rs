//! Tallies of a run and explanations of failures.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use super::TROUBLE;
use super::context::Context;
use super::payload;
use super::verdict::Stop;

/// Lines of an output shown with a failure.
const TAIL: usize = 8;
/// Processes whose output is shown with a failure.
const PROCESSES: usize = 4;

/// The number of scenarios by result.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// All held.
    pub passed: usize,
    /// The subject's faults and our own troubles.
    pub failed: usize,
    /// Not possible on this machine.
    pub skipped: usize,
    /// How many of the failed are our own troubles.
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
        Stop::Trouble(why) => writeln!(text, "  the test's own trouble: {why}"),
        Stop::Skip(why) => writeln!(text, "  skipped: {why}"),
    };
    let logs = context.logs();
    let spoken = logs.iter().rev().filter(|log| !log.stderr.text().is_empty()).take(PROCESSES);
    for log in spoken {
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

/// Removes a scenario's folder, or completes it with the outputs.
pub fn tidy(context: &Context, failed: bool, keep: bool) -> io::Result<()> {
    if !(failed && keep) {
        // A scenario that was given up on may still write there; the whole folder goes in the end.
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
    /// 0 if all held, 1 if some did not, 3 for the run's own troubles.
    pub fn exit_code(self) -> ExitCode {
        match self {
            _ if self.troubled > 0 => ExitCode::from(TROUBLE),
            _ if self.failed > 0 => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        }
    }
}

/// The exit code of a tool; prints the error, if there is one.
pub fn exit_code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        let kind = error.downcast_ref().map(io::Error::kind);
        // The reader of the output has closed it on purpose.
        if kind != Some(io::ErrorKind::BrokenPipe) {
            // Nothing is left to do about a closed stderr.
            let _ = writeln!(io::stderr().lock(), "ERROR: {error:#}");
        }
        ExitCode::from(TROUBLE)
    })
}
