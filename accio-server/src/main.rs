//! The Accio receiver: connection N's bytes become `N.file`.
#![forbid(unsafe_code)]

mod arguments;
mod on_commit;
mod receiver;
mod sandbox;

use std::process::ExitCode;

fn main() -> ExitCode {
    match on_commit::help() {
        Some(code) => code,
        None => accio_cli::main(receiver::run),
    }
}
