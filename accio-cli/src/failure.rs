//! The failure of a program, printed as a single line before it exits.

use std::fmt::{self, Display};
#[cfg(feature = "server")]
use std::io::ErrorKind;

#[cfg(feature = "server")]
use accio_proto::{DirError, ServerError};

use crate::color;
use crate::escape::escape;
use crate::log_writer;

/// The exit code of a usage error.
pub const USAGE: u8 = 2;

/// The failure of a program: the text of its `ERROR:` line and its exit code.
#[derive(Debug)]
pub struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// Creates the failure `WHAT: WHY` with exit code 1.
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Failure { text: format!("{what}: {why}"), code: 1 }
    }

    /// Creates a failure with the text of `error` and exit code 1.
    pub fn from_error(error: impl std::error::Error) -> Self {
        Failure { text: error.to_string(), code: 1 }
    }

    /// Creates a usage error from the text of the whole line.
    pub(crate) fn usage(text: String) -> Self {
        Failure { text, code: USAGE }
    }

    /// Creates a usage error with the text of clap's message in one line.
    pub fn from_usage_error(error: &clap::Error) -> Self {
        Failure::usage(usage_line(error, None))
    }

    /// Replaces the exit code.
    #[must_use]
    pub fn with_code(self, code: u8) -> Self {
        Failure { code, ..self }
    }

    /// Appends `advice` on what to do next.
    #[must_use]
    pub fn with_advice(self, advice: impl Display) -> Self {
        Failure { text: format!("{}; {advice}", self.text), ..self }
    }

    /// Returns the exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Prints the line `ERROR: WHAT: WHY` on stderr, in colour if `--color` asks for it.
    pub fn say(&self) {
        print_line(&format!("{} {}", color::error_prefix(), escape(&self.text)));
    }
}

impl Display for Failure {
    /// Writes what failed and why, without `ERROR:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(feature = "server")]
impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let advice = match &error {
            ServerError::Listen { cause, .. } => match cause.kind() {
                ErrorKind::AddrInUse => {
                    "choose another port, or stop the program that uses this one"
                }
                ErrorKind::AddrNotAvailable => "use an address of this machine",
                _ => return Failure::from_error(error),
            },
            _ => return Failure::from_error(error),
        };
        Failure::from_error(error).with_advice(advice)
    }
}

#[cfg(feature = "server")]
impl From<DirError> for Failure {
    fn from(error: DirError) -> Self {
        Failure::from_error(error)
    }
}

/// Prints a line on stderr, with control characters escaped. Never blocks in a server that has
/// started.
pub fn say(line: impl Display) {
    print_line(&escape(&line.to_string()));
}

fn print_line(line: &str) {
    // A single write, so that output of other processes does not come in between.
    log_writer::write(format!("{line}\n").as_bytes());
}

/// Prints the failure and ends the process immediately; may be called from any thread.
pub fn exit(failure: Failure) -> ! {
    failure.say();
    log_writer::flush_at_exit();
    std::process::exit(failure.code.into())
}

/// Joins the lines of clap's message into one: the error, then the usage.
pub(crate) fn usage_line(error: &clap::Error, variable: Option<&str>) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = variable.map(|name| format!("{name}:")).unwrap_or_default();
    for part in lines.filter(|line| !line.starts_with("For more information")) {
        let gap = match line.chars().last() {
            None => "",
            Some(':' | ',') => " ",
            Some(_) => "; ",
        };
        line.push_str(gap);
        line.push_str(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[arg(long)]
        timeout: Option<u8>,
        file: String,
    }

    #[test]
    fn formats_usage_errors_as_one_line() {
        for arguments in [&["test"][..], &["test", "a", "b"], &["test", "a", "--timeout", "-1"]] {
            let line = usage_line(&Arguments::try_parse_from(arguments).unwrap_err(), None);
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
        }
        let line = usage_line(&Arguments::try_parse_from(["test"]).unwrap_err(), None);
        assert!(line.contains("required") && line.contains("Usage: test"), "{line}");
    }
}
