//! The receiver of a store, from its flags to its end.

use std::process::ExitCode;
use std::time::Duration;

use accio_cli::{Failure, Program, USAGE, bytes};
use accio_proto::Server;
use clap::builder::FalseyValueParser;

use super::connect::{Connection, connect};
use super::parts::PART;
use super::{LAST_CLEANUP, StoreSink};
use crate::arguments::{Arguments, WithExisting};
use crate::sandbox::Sandbox;

/// How files are kept in a store.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Object stores")]
pub(crate) struct StoreFlags {
    /// The name of this receiver, which no other has: files become PREFIX/NAME/N.file [default: the
    /// host's name]
    #[arg(long, value_name = "NAME", value_parser = name, env = "ACCIO_NODE", hide_env = true,
          hide_short_help = true)]
    node: Option<String>,
    /// Begin after the highest number this receiver has in the store
    #[arg(long, env = "ACCIO_IDS_FROM_STORE", hide_env = true, hide_short_help = true,
          value_parser = FalseyValueParser::new())]
    ids_from_store: bool,
    /// How much memory all uploads together may hold: bytes, or with K, M, G or T; at least 16M
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "512M",
          env = "ACCIO_STORE_MEMORY", hide_env = true, hide_short_help = true)]
    store_memory: u64,
}

/// Receives into the store at `address`.
pub(crate) fn serve(address: &str, arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { port, workers, sandbox, files, limits, serve, store, .. } = arguments;
    serve.verbosity.start_log();
    let meaningless = [
        ("--on-commit", files.on_commit.is_some()),
        ("--mode", files.mode.is_some()),
        ("--existing keep", files.existing == WithExisting::Keep),
        ("--min-free", limits.min_free > 0),
        ("--sandbox require", sandbox == Sandbox::Require),
    ];
    if let Some((flag, _)) = meaningless.into_iter().find(|(_, given)| *given) {
        let why = "it is for folders, and the files go into a store";
        return Err(Failure::new(flag, why).with_code(USAGE));
    }
    let node = match store.node {
        Some(node) => node,
        None => host_name()?,
    };
    let (sink, first_id) = connect(&Connection {
        address,
        node: &node,
        memory: store.store_memory,
        ids_from: files.ids_from,
        ids_from_store: store.ids_from_store,
    })?;
    log::info!("writing as node {node:?}, from {first_id}.file");
    let mut builder = limits.apply(Server::builder(sink.clone())).first_id(first_id);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    serve.serve(builder, port, Receiver { sink })
}

/// What this server does beside serving.
struct Receiver {
    sink: StoreSink,
}

impl Program for Receiver {
    fn stopping(&self) {
        self.sink.close();
    }

    fn grace(&self) -> Duration {
        // Uploads are aborted at the store, which is one or two requests each; a store that does
        // not answer is not waited for longer.
        LAST_CLEANUP + Duration::from_secs(1)
    }
}

fn host_name() -> Result<String, Failure> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    name(&host).map_err(|why| {
        Failure::new(format_args!("host name {host:?}"), format_args!("{why}; give a --node"))
            .with_code(USAGE)
    })
}

/// A name that is one step of every store's paths, and hides nothing.
fn name(value: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if value.is_empty() || value.len() > 200 || value.starts_with('.') || !value.chars().all(plain)
    {
        return Err("not letters, digits, dots, hyphens and underscores".to_owned());
    }
    Ok(value.to_owned())
}

/// Two parts at the least: while one is sent, another fills.
fn memory(value: &str) -> Result<u64, String> {
    match bytes(value)? {
        size if size < 2 * PART as u64 => Err("less than 16M".to_owned()),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_step() {
        for good in ["a", "node-1.example.org", "A_b"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", &"x".repeat(201)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_is_two_parts_at_least() {
        assert_eq!(memory("16M"), Ok(16 << 20));
        assert!(memory("15M").is_err());
        assert!(memory("x").is_err());
    }
}
