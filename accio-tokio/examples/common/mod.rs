//! The command line of the example programs.

#![allow(clippy::print_stderr, reason = "programs")]

use std::error::Error;
use std::process::ExitCode;

/// The arguments and flags of a command line; each flag has a value.
pub(crate) type Arguments<const N: usize> = ([String; N], Vec<(String, String)>);

/// Splits the command line into `N` arguments and the flags after them.
pub(crate) fn arguments<const N: usize>(usage: &str) -> Result<Arguments<N>, Box<dyn Error>> {
    let usage = || format!("usage: {usage}");
    let mut words = std::env::args().skip(1);
    let arguments: Vec<String> = words.by_ref().take(N).collect();
    let arguments = arguments.try_into().map_err(|_| usage())?;
    let mut flags = Vec::new();
    while let Some(flag) = words.next() {
        flags.push((flag, words.next().ok_or_else(usage)?));
    }
    Ok((arguments, flags))
}

/// Prints the error of a program, if there is one, and returns the exit code.
pub(crate) fn exit_code(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ERROR: {error}");
            ExitCode::FAILURE
        }
    }
}
