//! Prints a line for each connection.

use std::io::{self, Write};

use accio_cli::{Failure, Program};
use accio_proto::{Outcome, os_error_text};

/// Prints the number of bytes of each connection's file, or ERROR.
pub(crate) struct Counter;

impl Program for Counter {
    fn observe(&self, outcome: &Outcome) {
        if let Err(error) = print(outcome) {
            // A count that cannot be read is lost: end rather than continue silently.
            accio_cli::exit(cannot_print(&error));
        }
    }
}

/// Fails if stdout was closed when the program started.
pub(crate) fn check_output() -> Result<(), Failure> {
    accio_cli::check_stdout().map_err(|error| cannot_print(&error))
}

fn cannot_print(error: &io::Error) -> Failure {
    Failure::new("cannot print to stdout", os_error_text(error))
}

fn print(outcome: &Outcome) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match outcome.result {
        Ok(()) => writeln!(stdout, "{}", outcome.bytes)?,
        Err(_) => writeln!(stdout, "ERROR")?,
    }
    stdout.flush()
}
