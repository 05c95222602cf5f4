//! The Accio server: stores the bytes of connection N as `N.file`.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod receiver;
#[cfg(all(linux_sys, feature = "digest"))]
mod reopener;
#[cfg(linux_sys)]
mod sandbox;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(linux_sys)]
    if let Some(code) = accio_cli::open_journals(sandbox::confine_journal_opener) {
        return code;
    }
    #[cfg(all(linux_sys, feature = "digest"))]
    if let Some(code) = reopener::reopen_files(sandbox::confine_reopener) {
        return code;
    }
    match commands::help() {
        Some(code) => code,
        None => accio_cli::main(receiver::run),
    }
}
