//! The entry point of the programs: from the command line to the exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use accio_proto::os_error_text;
use clap::Parser;
use clap::error::ErrorKind;

use crate::failure::{Failure, usage_line};
use crate::file_size::survive_file_size_limit;
use crate::{color, completions, environment, log_writer};

/// Runs a program: parses the arguments, calls `run`, prints a failure, and returns the exit code.
///
/// Prints help and the version on stdout with exit code 0. Prints every failure, including usage
/// errors, as a single line `ERROR: WHAT: WHY` on stderr. Adds `--generate` to the flags of the
/// program.
pub fn main<A: Parser>(run: impl FnOnce(A) -> Result<ExitCode, Failure>) -> ExitCode {
    let outcome = survive_file_size_limit().and_then(|()| match parse::<A>() {
        Ok(Parsed::Arguments(arguments)) => run(arguments),
        Ok(Parsed::Generated(text)) => {
            let mut stdout = io::stdout().lock();
            printed(stdout.write_all(&text).and_then(|()| stdout.flush()))
        }
        Err(Rejected { error, variable }) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => printed(error.print()),
            _ => Err(Failure::usage(usage_line(&error, variable.as_deref()))),
        },
    });
    let code = outcome.unwrap_or_else(|failure| {
        failure.say();
        ExitCode::from(failure.code())
    });
    log_writer::flush_at_exit();
    code
}

fn printed(result: io::Result<()>) -> Result<ExitCode, Failure> {
    let failure = |error| Failure::new("cannot print to stdout", os_error_text(&error));
    result.map(|()| ExitCode::SUCCESS).map_err(failure)
}

enum Parsed<A> {
    Arguments(A),
    /// The output of `--generate`.
    Generated(Vec<u8>),
}

/// A command line that is invalid, or that requests help.
struct Rejected {
    error: clap::Error,
    /// The variable that contains the invalid value, unless it is on the command line.
    variable: Option<String>,
}

impl<E: Into<clap::Error>> From<E> for Rejected {
    fn from(error: E) -> Self {
        Rejected { error: error.into(), variable: None }
    }
}

/// Works like `A::try_parse`, and handles `--color`, `--generate` and variables.
fn parse<A: Parser>() -> Result<Parsed<A>, Rejected> {
    // Help explains the names of all variables in one place.
    let command = A::command().mut_args(|argument| argument.hide_env(true));
    let mut command = completions::add_generate_flag(command).color(color::choose().into());
    environment::check(&command);
    let plain = command.clone();
    let mut matches = command.try_get_matches_from_mut(std::env::args_os()).map_err(|error| {
        let variable = environment::culprit(&error, &plain, std::env::args_os());
        Rejected { error, variable }
    })?;
    if let Some(text) = completions::generated(&matches, &command)? {
        return Ok(Parsed::Generated(text));
    }
    let arguments = A::from_arg_matches_mut(&mut matches);
    Ok(Parsed::Arguments(arguments.map_err(|error| error.format(&mut command))?))
}
