//! `cargo xtask examples`: tests the examples in `examples/`, and runs the end-to-end scenarios and the
//! conformance kit with those of `accio-tokio`. The former are a workspace of their own, because other
//! builds should not wait for their dependencies.

use std::path::Path;
use std::process::{Command, ExitCode};

use accio_harness::cargo::cargo;
use accio_harness::process;

use crate::tools::Tool;

/// The programs on tokio.
pub(crate) const ON_TOKIO: [&str; 2] = ["server", "client"];

/// The flags of the server on tokio; scenarios that need others are skipped.
const SERVER_FLAGS: &str = "--bind,--handshake,--timeout,--max-connections,--without";

/// Tests the examples, and runs all scenarios and all checks of the courses with the programs on tokio.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut tests = cargo();
    tests.arg("test").current_dir(root.join("examples"));
    tests.arg("--target-dir").arg(root.join("target/examples"));
    let mut passed = process::foreground(&mut tests)?.success();
    let mut build = cargo();
    build.args(["build", "--example", "server", "--example", "client", "--bin", "accio-client"]);
    // Some scenarios run both servers.
    build.args(["--bin", "accio-server", "--bin", "server-s"]).current_dir(&root);
    if !process::foreground(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let programs = root.join("target/debug");
    let directory = programs.join("examples");
    let mut scenarios = Tool::E2e.command();
    scenarios.arg("--bin-dir").arg(&programs).arg("--server").arg(server(&directory));
    scenarios.args(["--server-flags", SERVER_FLAGS]);
    passed &= process::foreground(&mut scenarios)?.success();
    let mut grade = Tool::Grade.command();
    name_programs(&mut grade, &directory);
    passed &= process::foreground(&mut grade)?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells the conformance kit to grade the programs on tokio in this directory.
pub(crate) fn name_programs(grade: &mut Command, directory: &Path) {
    grade.args(["--handshake", "accio"]);
    grade.arg("--server").arg(server(directory));
    let client = format!("'{}'/client {{host}} {{port}} {{file}}", directory.display());
    grade.arg("--client").arg(client);
}

/// Returns the command that starts the server on tokio.
fn server(directory: &Path) -> String {
    format!("'{}'/server {{port}} {{dir}}", directory.display())
}
