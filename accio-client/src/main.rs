//! Sends files to an Accio server.
#![forbid(unsafe_code)]

mod advice;
mod arguments;
mod command;
mod content;
mod descendants;
mod directory;
mod events;
mod exit_code;
mod format;
mod help;
mod probe;
mod terminal;
mod upload;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use accio_cli::{Failure, raise_descriptor_limit, write_stderr_in_background};
use accio_proto::os_error_text;

use arguments::Arguments;
use events::Events;
use exit_code::LOCAL;

fn main() -> ExitCode {
    accio_cli::main(run)
}

#[cfg_attr(not(feature = "tls"), expect(unused_mut, reason = "only TLS loads something"))]
fn run(mut arguments: Arguments) -> Result<ExitCode, Failure> {
    arguments.output.verbosity.start_log();
    arguments.check()?;
    let events = Arc::new(Events::new(arguments.output.json));
    #[cfg(feature = "tls")]
    if let Err(failure) = arguments.load_tls() {
        events.unusable_file(&failure);
        // The failure takes precedence over a failure to print events.
        let _ = events.end();
        return Err(failure);
    }
    raise_descriptor_limit();
    if !io::stderr().is_terminal() {
        // A transfer must not wait for the reader of its log or progress.
        write_stderr_in_background().map_err(|error| cannot_start(&error))?;
    }
    let outcome = match arguments.probe {
        true => probe::run(&arguments, &events),
        false => upload::all(&arguments, &events),
    };
    // All events are written before the process ends. A failed transfer takes precedence over a
    // failure to print events.
    match (outcome, events.end()) {
        (Err(failure), _) | (Ok(0), Err(failure)) => Err(failure),
        (Ok(code), _) => Ok(ExitCode::from(code)),
    }
}

/// Returns the failure to start a thread, which this machine is short of memory for.
fn cannot_start(error: &io::Error) -> Failure {
    Failure::new("cannot start a thread", os_error_text(error)).with_code(LOCAL)
}
