//! The Accio server that counts bytes: one client at a time, one line per client.
#![forbid(unsafe_code)]

mod arguments;
mod counter;
#[cfg(feature = "diagnostics")]
mod panicking;

use std::process::ExitCode;

fn main() -> ExitCode {
    accio_cli::main(|arguments: arguments::Arguments| {
        arguments.server.verbosity.start_log();
        let counter = counter::Counter::start()?;
        arguments.server.run(arguments.builder(), arguments.port, counter)
    })
}
