//! The Accio receiver: connection N's bytes become `N.file`.
#![forbid(unsafe_code)]

mod sandbox;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use accio_proto::cli::{Failure, ServeFlags, bytes, seconds};
use accio_proto::{DirSink, Network, Port, Server};
use clap::Parser;
use sandbox::Sandbox;

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
    /// Confirm a file only when it is on the disk, to survive a power loss
    #[arg(long)]
    durable: bool,
    /// Give up, once listening, what is not needed: other files, connecting out, running programs
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Sandbox::Try)]
    sandbox: Sandbox,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    serve: ServeFlags,
}

/// What one client, or all of them, may take.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// How many clients are served at once; more wait, not refused [default: what the descriptor
    /// limit allows]
    #[arg(long, value_name = "N")]
    max_connections: Option<NonZeroUsize>,
    /// How many clients of one address are served at once; more are refused
    #[arg(long, value_name = "N")]
    max_per_ip: Option<NonZeroU32>,
    /// How large a file may be: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_size: Option<u64>,
    /// How long a transfer may take, however busy it is
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    max_duration: Option<Duration>,
    /// How many bytes a second a client must send, over any ten seconds; with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    min_rate: Option<u64>,
    /// How much of the disk must be free to accept a connection: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "0", hide_default_value = true)]
    min_free: u64,
    /// Serve only clients of this network (repeatable): an address, or one such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Network>,
    /// Refuse clients of this network (repeatable), even if it is allowed too
    #[arg(long, value_name = "CIDR")]
    deny: Vec<Network>,
}

fn main() -> ExitCode {
    accio_proto::cli::main(run)
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { port, file_dir, workers, durable, sandbox, limits, serve } = arguments;
    serve.verbosity.start_log();
    let sink = DirSink::options()
        .fast_paths(serve.fast_paths())
        .durable(durable)
        .min_free(limits.min_free)
        .create(file_dir)?;
    let mut builder = Server::builder(sink.clone()).allow(limits.allow).deny(limits.deny);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    if let Some(max_connections) = limits.max_connections {
        builder = builder.max_connections(max_connections);
    }
    if let Some(max_per_ip) = limits.max_per_ip {
        builder = builder.max_per_ip(max_per_ip);
    }
    if let Some(max_size) = limits.max_size {
        builder = builder.max_size(max_size);
    }
    if let Some(max_duration) = limits.max_duration {
        builder = builder.max_duration(max_duration);
    }
    if let Some(min_rate) = limits.min_rate {
        builder = builder.min_rate(min_rate);
    }
    serve.serve(builder, port, || sandbox.confine(&sink))
}
