//! The Accio server: stores the bytes of connection N as `N.file`.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod receiver;
#[cfg(linux_sys)]
mod sandbox;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(linux_sys)]
    if let Some(code) = accio_cli::open_journals(sandbox::confine_journal_opener) {
        return code;
    }
    match commands::help() {
        Some(code) => code,
        None => accio_cli::main(receiver::run),
    }
}
