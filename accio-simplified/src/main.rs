//! The Accio server that counts: one client at a time, one line each.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use accio_cli::{Failure, Program, ServeFlags};
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
    // Its stdout has the counts.
    mut_arg("journal", |journal| journal.help(JOURNAL).long_help(JOURNAL_LONG)),
    after_help = SHORT_END,
    after_long_help = END
)]
struct Arguments {
    /// The port to listen on: 1 to 65535, or a service name
    #[arg(allow_hyphen_values = true)]
    port: Port,
    #[command(flatten)]
    serve: ServeFlags,
}

const JOURNAL: &str = "Write a line of JSON for every connection to this file";

const JOURNAL_LONG: &str = "\
Write a line of JSON for every connection to this file

Fields: time, id, peer, dialect, bytes, duration, outcome (complete or error), and for an error \
reason (one stable word) and error (text). SIGHUP opens the file anew, for rotation.";

const SHORT_END: &str = "Exit codes: 0 stopped by SIGINT, SIGTERM or SIGQUIT; 1 cannot listen or \
cannot print; 2 usage. See --help for more, and for examples.";

const END: &str = "\
Examples:
  server-s 5000
      Count what each client sends.
  server-s 5000 --handshake direct --timeout 3
      The same for clients that wait for no greeting, and give up on them sooner.
  server-s 5000 --journal accio.ndjson >counts
      Keep the counts in one file, and who sent them in another.

Environment:
  Each flag but -v and -q can be given as a variable: ACCIO_TIMEOUT=3 is --timeout 3. The command
  line wins. Where a flag is repeatable, commas separate the values.
  RUST_LOG says what is logged, NO_COLOR that it is not coloured.

Signals:
  SIGTERM, SIGINT, SIGQUIT end the server (see --drain), SIGHUP opens the journal anew.

Exit codes:
  0  stopped by a signal
  1  cannot listen, or cannot print or use the journal
  2  wrong usage";

fn main() -> ExitCode {
    accio_cli::main(run)
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { port, serve } = arguments;
    serve.verbosity.start_log();
    accio_cli::check_stdout()
        .map_err(|error| Failure::new("cannot print to stdout", accio_cli::reason(&error)))?;
    let builder =
        Server::builder(CountSink).workers(NonZeroUsize::MIN).max_connections(NonZeroUsize::MIN);
    serve.serve(builder, port, Counter)
}

/// Prints the counts.
struct Counter;

impl Program for Counter {
    fn has_stdout(&self) -> bool {
        false
    }

    fn observe(&self, outcome: &Outcome) {
        if let Err(error) = print(outcome) {
            // A count that nobody can read is no count: better to end than to go on silently.
            accio_cli::exit(Failure::new("cannot print to stdout", error));
        }
    }
}

fn print(outcome: &Outcome) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match outcome.result {
        Ok(()) => writeln!(stdout, "{}", outcome.bytes)?,
        Err(_) => writeln!(stdout, "ERROR")?,
    }
    stdout.flush()
}
