//! `cargo xtask test-portable`: tests the library and the programs without the features and system
//! calls that only Linux has.

use std::env;
use std::process::ExitCode;

use accio_harness::cargo::cargo;
use accio_harness::process;

use crate::tools::Tool;

/// The tests of the library that cover the portable code.
const TESTS: [&str; 4] = ["--lib", "--test=api", "--test=server", "--test=simulation"];
/// The target directory of this build.
const TARGET: &str = "target/portable";

/// Builds the library and the programs as for a system without epoll, splice, Landlock and so on, in
/// a separate target directory. Runs the library's tests and the end-to-end scenarios, and grades the
/// programs.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let flags = format!("{} --cfg accio_portable", env::var("RUSTFLAGS").unwrap_or_default());
    let portable = |verb: &str| {
        let mut command = cargo();
        command.args([verb, "--target-dir", TARGET]).env("RUSTFLAGS", &flags);
        command
    };
    let mut tests = portable("test");
    tests.args(["--package=accio-proto", "--features=client,server"]).args(TESTS);
    let mut build = portable("build");
    build.args(["--package=accio-server", "--package=accio-client", "--package=accio-simplified"]);
    // The scenarios also run server-s without fast paths.
    build.args(["--bins", "--features=accio-simplified/diagnostics"]);
    let mut passed = process::foreground(&mut tests)?.success();
    if !process::foreground(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let bin = format!("{TARGET}/debug");
    for tool in [Tool::E2e, Tool::Grade] {
        passed &= process::foreground(tool.command().args(["--bin-dir", &bin]))?.success();
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
