//! Sends a file to an Accio server.
#![forbid(unsafe_code)]

mod arguments;
mod report;

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use accio_proto::cli::{self, Failure, reason};
use accio_proto::{Client, ClientBuilder, ClientError, FastPaths};

use arguments::Arguments;

fn main() -> ExitCode {
    cli::main(run)
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    arguments.verbosity.start_log();
    let file =
        open(&arguments.file).map_err(|error| cannot_read(&arguments.file, reason(&error)))?;
    let client = client(&arguments).build()?;
    let sent = client
        .send(&arguments.host, arguments.port.number(), file)
        .map_err(|error| named(error, &arguments.file))?;
    report::end(&sent, &arguments);
    Ok(ExitCode::SUCCESS)
}

fn client(arguments: &Arguments) -> ClientBuilder {
    let client = Client::builder()
        .dialect(arguments.handshake)
        .fast_paths(FastPaths::without(arguments.without.iter().copied()));
    match arguments.timeout {
        None => client,
        Some(limit) => client
            .connect_timeout(limit)
            .handshake_timeout(limit)
            .stall_timeout(limit)
            .confirm_timeout(limit),
    }
}

/// Opens the file, and finds out that it is a directory before anybody is bothered with it.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    match file.metadata()?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(file),
    }
}

/// The library does not know the file's name.
fn named(error: ClientError, path: &Path) -> Failure {
    match error {
        ClientError::Read { ref source } => cannot_read(path, reason(source)),
        ClientError::Shrank { expected, found } => cannot_read(
            path,
            format!("it shrank from {expected} to {found} bytes while it was being sent"),
        ),
        error => error.into(),
    }
}

fn cannot_read(path: &Path, why: impl std::fmt::Display) -> Failure {
    /// The exit code for a file that cannot be read, as curl has it.
    const READ: u8 = 26;
    Failure::new(format!("file {path:?}"), why).with_code(READ)
}
