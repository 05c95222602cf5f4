//! The command line of the example programs.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "programs")]

use std::error::Error;
use std::process::{ExitCode, exit};

/// The arguments and flags of a command line; each flag has a value, which is empty for `-q`.
pub(crate) type Arguments<const N: usize> = ([String; N], Vec<(String, String)>);

/// Splits the command line into `N` arguments and the flags. Prints help or the version and exits if
/// that is requested.
pub(crate) fn arguments<const N: usize>(usage: &str) -> Result<Arguments<N>, Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (mut arguments, mut flags) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match &*word {
            "-h" | "--help" => {
                println!("usage: {usage}");
                exit(0);
            }
            "--version" => {
                println!("accio-tokio {}", env!("CARGO_PKG_VERSION"));
                exit(0);
            }
            "-q" => flags.push((word, String::new())),
            flag if flag.starts_with("--") => {
                let value = words.next();
                let value = value.ok_or_else(|| format!("{flag}: no value: usage: {usage}"))?;
                flags.push((word, value));
            }
            extra if arguments.len() == N => {
                return Err(format!("{extra:?}: unexpected argument: usage: {usage}").into());
            }
            _ => arguments.push(word),
        }
    }
    let arguments = arguments.try_into().map_err(|_| format!("usage: {usage}"))?;
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
