//! Receives files into the directory or the object store given as FILE-DIR.

mod directory;
#[cfg(feature = "store-core")]
mod store;

use std::path::Path;
use std::process::ExitCode;

use accio_cli::{Failure, USAGE};

use crate::arguments::Arguments;
use crate::verify;

/// Receives files until a signal ends the server, or verifies those received before.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if arguments.json && arguments.verify.is_none() {
        return Err(Failure::new("--json", "applies to --verify only").with_code(USAGE));
    }
    let (port, file_dir) = match (&arguments.verify, arguments.port, &arguments.file_dir) {
        (None, Some(port), Some(file_dir)) => (port, file_dir.clone()),
        (verify, ..) => {
            // clap allows no other number of values, and no positional argument next to the flag.
            let paths = verify.as_deref().unwrap_or_default();
            let [journal, dir] = paths else {
                return Err(Failure::new("usage", "no PORT and FILE-DIR").with_code(USAGE));
            };
            return verify::run(journal, dir, arguments.json, arguments.server.verbosity.quiet);
        }
    };
    match store_address(&file_dir) {
        #[cfg(feature = "store-core")]
        Some(address) => store::run(&address, port, arguments),
        #[cfg(not(feature = "store-core"))]
        Some(address) => {
            Err(another_build(address.split("://").next().unwrap_or_default(), "object stores"))
        }
        None => directory::run(port, file_dir, arguments),
    }
}

/// Returns the error for a store that this build does not support.
fn another_build(scheme: &str, stores: &str) -> Failure {
    // The rest of the address may contain a password.
    let what = format_args!("cannot use a store ({scheme}://)").to_string();
    let how = format_args!(
        "this accio-server supports no {stores}; build one that does: cargo build --release \
         -p accio-server --features store"
    )
    .to_string();
    Failure::new(what, how).with_code(USAGE)
}

/// Returns the argument if it is the address of a store: `s3://...` but not `./s3://...`.
fn store_address(path: &Path) -> Option<String> {
    let (scheme, _) = path.to_str()?.split_once("://")?;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(letter);
    is_scheme.then(|| path.to_str().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_address_is_not_a_directory() {
        for store in ["s3://b/p", "gs://b", "http://h/", "file:///x", "s3://"] {
            assert_eq!(store_address(Path::new(store)).as_deref(), Some(store));
        }
        for directory in ["received", "./s3://b", "/a://b", "://", "3://b", "a b://c", "s3:/b"] {
            assert_eq!(store_address(Path::new(directory)), None, "{directory}");
        }
    }
}
