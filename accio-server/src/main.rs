//! The Accio receiver: connection N's bytes become `N.file`.
#![forbid(unsafe_code)]

mod arguments;
mod on_commit;
mod sandbox;
#[cfg(feature = "store-core")]
mod store;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use accio_cli::{Failure, Program, reason, say};
use accio_proto::{DirSink, FileSink, Outcome, Server, ServerBuilder};
use arguments::{Arguments, Files, Limits, WithExisting};
use on_commit::{Helper, OnCommit};
use sandbox::Sandbox;

fn main() -> ExitCode {
    match on_commit::help() {
        Some(code) => code,
        None => accio_cli::main(run),
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if let Some(address) = store_address(&arguments.file_dir) {
        return into_store(&address, arguments);
    }
    let Arguments { port, file_dir, workers, sandbox, files, limits, serve, .. } = arguments;
    serve.verbosity.start_log();
    let command = files.on_commit.as_deref().map(on_commit::parse).transpose()?;
    let mut options = DirSink::options()
        .fast_paths(serve.fast_paths())
        .durable(files.durable)
        .min_free(limits.min_free)
        .existing(files.existing.into());
    if let Some(mode) = files.mode {
        options = options.mode(mode);
    }
    let sink = options.create(&file_dir)?;
    // Both the journal's place and the commands' are told apart from it by what it is, wherever
    // the process or a link leads later.
    let folder = std::fs::canonicalize(&file_dir).map_err(|error| {
        Failure::new(format_args!("cannot use directory {file_dir:?}"), reason(&error))
    })?;
    let first_id = first_id(&files, &sink, &file_dir, serve.verbosity.quiet)?;
    let mut builder = limits.apply(Server::builder(sink.clone())).first_id(first_id);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    let on_commit = command.map(|command| OnCommit {
        command,
        jobs: files.on_commit_jobs,
        folder: folder.clone(),
        verbosity: serve.verbosity,
        color: serve.color.color,
    });
    let receiver = Receiver { folder, sink, sandbox, on_commit, helper: OnceLock::new() };
    serve.serve(builder, port, receiver)
}

/// What stands for a folder, if it is the address of a store: `s3://...` and not `./s3://...`.
fn store_address(path: &Path) -> Option<String> {
    let (scheme, _) = path.to_str()?.split_once("://")?;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(letter);
    is_scheme.then(|| path.to_str().map(str::to_owned))?
}

#[cfg(feature = "store-core")]
use store::serve as into_store;

#[cfg(not(feature = "store-core"))]
fn into_store(address: &str, _: Arguments) -> Result<ExitCode, Failure> {
    Err(another_build(address))
}

/// Such a store is for one that was built with more features.
#[cfg(not(feature = "store"))]
fn another_build(address: &str) -> Failure {
    // What may hold a password is not told.
    let scheme = address.split("://").next().unwrap_or_default();
    let what = format_args!("cannot keep files in a store ({scheme}://)").to_string();
    let stores = if cfg!(feature = "store-core") { "stores but file://" } else { "object stores" };
    let how = format_args!(
        "this accio-server has no {stores}; build one that has: cargo build --release \
         -p accio-server --features store"
    );
    Failure::new(what, how).with_code(accio_cli::USAGE)
}

/// The number to begin with.
fn first_id(files: &Files, sink: &DirSink, path: &Path, quiet: bool) -> Result<u64, Failure> {
    let asked = files.ids_from;
    if files.existing == WithExisting::Replace {
        return Ok(asked);
    }
    let highest = sink.highest().map_err(|error| {
        Failure::new(format_args!("cannot look into directory {path:?}"), reason(&error))
    })?;
    match highest {
        Some(highest) if highest >= asked => {
            let next = highest.checked_add(1).ok_or_else(|| {
                let what = format_args!("cannot keep what is in {path:?}").to_string();
                Failure::new(what, format_args!("no number is above that of {highest}.file"))
            })?;
            if !quiet {
                say(format_args!("keeping the files up to {highest}.file; next is {next}.file"));
            }
            Ok(next)
        }
        _ => Ok(asked),
    }
}

impl Limits {
    fn apply<K: FileSink>(self, builder: ServerBuilder<K>) -> ServerBuilder<K> {
        let mut builder = builder.allow(self.allow).deny(self.deny);
        if let Some(max_connections) = self.max_connections {
            builder = builder.max_connections(max_connections);
        }
        if let Some(max_per_ip) = self.max_per_ip {
            builder = builder.max_per_ip(max_per_ip);
        }
        #[cfg(feature = "proxy-protocol")]
        {
            builder = builder.proxy_protocol(self.proxy_protocol);
        }
        if let Some(max_size) = self.max_size {
            builder = builder.max_size(max_size);
        }
        if let Some(max_duration) = self.max_duration {
            builder = builder.max_duration(max_duration);
        }
        if let Some(min_rate) = self.min_rate {
            builder = builder.min_rate(min_rate);
        }
        builder
    }
}

/// What this server does beside serving.
struct Receiver {
    folder: PathBuf,
    sink: DirSink,
    sandbox: Sandbox,
    on_commit: Option<OnCommit>,
    helper: OnceLock<Mutex<Option<Helper>>>,
}

impl Program for Receiver {
    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn confine(&self, journal: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        // While programs can be run.
        let helper = self.on_commit.as_ref().map(OnCommit::start).transpose()?;
        self.helper.get_or_init(|| Mutex::new(helper));
        self.sandbox.confine(&self.sink, journal)
    }

    fn observe(&self, outcome: &Outcome) {
        if outcome.result.is_ok()
            && let Some(helper) = self.helper.get()
            && let Some(helper) = &*helper.lock().unwrap_or_else(PoisonError::into_inner)
        {
            helper.run(outcome);
        }
    }

    fn finish(&self, deadline: &dyn Fn() -> Instant) {
        let helper = self.helper.get();
        let take = |helper: &Mutex<Option<Helper>>| {
            helper.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        if let Some(helper) = helper.and_then(take) {
            helper.finish(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_told_from_a_folder() {
        for store in ["s3://b/p", "gs://b", "http://h/", "file:///x", "s3://"] {
            assert_eq!(store_address(Path::new(store)).as_deref(), Some(store));
        }
        for folder in ["received", "./s3://b", "/a://b", "://", "3://b", "a b://c", "s3:/b"] {
            assert_eq!(store_address(Path::new(folder)), None, "{folder}");
        }
    }
}
