//! `cargo xtask test-portable`: tests the library without the Linux-only system calls.

use std::env;
use std::process::ExitCode;

use accio_harness::cargo::cargo;
use accio_harness::process;

/// The tests of the library that cover the portable code.
const TESTS: [&str; 6] = [
    "--lib",
    "--test=copier",
    "--test=server",
    "--test=session_limits",
    "--test=simulation",
    "--test=handshake_properties",
];

/// Builds the library as for a system without epoll, splice and so on, in a separate target
/// directory, and runs its tests.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    let mut tests = cargo();
    tests
        .args(["test", "--package=accio-proto", "--target-dir=target/portable"])
        .arg("--features=client,server")
        .args(TESTS)
        .env("RUSTFLAGS", format!("{flags} --cfg accio_portable"));
    let passed = process::foreground(&mut tests)?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
