//! The Accio server that counts: one client at a time, one line each.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use accio_proto::cli::{Failure, ServeFlags};
use accio_proto::{CountSink, Outcome, Port, Server};
use clap::Parser;

/// Counts what each client sends, one client at a time
///
/// Prints a line for each connection: the number of bytes of its file, or ERROR when the client
/// falls silent, resets the connection or breaks the handshake. The other clients wait their turn,
/// neither refused nor greeted.
#[derive(Debug, Parser)]
#[command(
    name = "server-s",
    version,
    after_help = "Exit codes: 0 stopped by SIGINT, SIGTERM or \
SIGQUIT; 1 cannot listen or cannot print; 2 usage."
)]
struct Arguments {
    /// The port to listen on: 1 to 65535, or a service name
    #[arg(allow_hyphen_values = true)]
    port: Port,
    #[command(flatten)]
    serve: ServeFlags,
}

fn main() -> ExitCode {
    accio_proto::cli::main(run)
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { port, serve } = arguments;
    serve.verbosity.start_log();
    let builder = Server::builder(CountSink)
        .workers(NonZeroUsize::MIN)
        .max_connections(NonZeroUsize::MIN)
        .on_outcome(|outcome| {
            if let Err(error) = print(outcome) {
                // A count that nobody can read is no count: better to end than to go on silently.
                accio_proto::cli::exit(Failure::new("cannot print to stdout", error));
            }
        });
    serve.serve(builder, port, || Ok(()))
}

fn print(outcome: &Outcome) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match outcome.result {
        Ok(()) => writeln!(stdout, "{}", outcome.bytes)?,
        Err(_) => writeln!(stdout, "ERROR")?,
    }
    stdout.flush()
}
