//! The Accio receiver: connection N's bytes become `N.file`.
#![forbid(unsafe_code)]

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use accio_proto::cli::{Failure, ServeFlags};
use accio_proto::{DirSink, Port, Server};
use clap::Parser;

/// Receives files over TCP: the bytes of connection N become FILE-DIR/N.file
///
/// Connections count from 1 in the order they are accepted, and are served all at once. A file
/// appears when it is complete. When a client falls silent, resets the connection or breaks the
/// handshake, its file holds the word ERROR and nothing of what it sent.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 stopped by SIGINT, SIGTERM or SIGQUIT; 1 cannot \
listen or cannot use FILE-DIR; 2 usage."
)]
struct Arguments {
    /// The port to listen on: 1 to 65535, or a service name
    #[arg(allow_hyphen_values = true)]
    port: Port,
    /// Where to keep the files; created when missing
    #[arg(value_name = "FILE-DIR")]
    file_dir: PathBuf,
    /// How many threads serve [default: one per core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// How many clients are served at once; more wait, not refused [default: what the descriptor
    /// limit allows]
    #[arg(long, value_name = "N")]
    max_connections: Option<NonZeroUsize>,
    #[command(flatten)]
    serve: ServeFlags,
}

fn main() -> ExitCode {
    accio_proto::cli::main(run)
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { port, file_dir, workers, max_connections, serve } = arguments;
    serve.verbosity.start_log();
    let sink = DirSink::options().fast_paths(serve.fast_paths()).create(file_dir)?;
    let mut builder = Server::builder(sink);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    if let Some(max_connections) = max_connections {
        builder = builder.max_connections(max_connections);
    }
    serve.serve(builder, port)
}
