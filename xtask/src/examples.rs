//! `cargo xtask examples`: tests the examples in `examples/`, and grades those of `accio-tokio`. The
//! former are a workspace of their own, because other builds should not wait for their dependencies.

use std::path::Path;
use std::process::{Command, ExitCode};

use accio_harness::cargo::cargo;
use accio_harness::process;

use crate::tools::Tool;

/// The programs on tokio.
pub(crate) const ON_TOKIO: [&str; 2] = ["server", "client"];

/// Tests the examples and runs all checks of the courses on the programs on tokio.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut tests = cargo();
    tests.arg("test").current_dir(root.join("examples"));
    tests.arg("--target-dir").arg(root.join("target/examples"));
    let mut passed = process::foreground(&mut tests)?.success();
    let mut build = cargo();
    build.args(["build", "--package", "accio-tokio", "--examples"]).current_dir(&root);
    if !process::foreground(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let mut grade = Tool::Grade.command();
    name_programs(&mut grade, &root.join("target/debug/examples"));
    passed &= process::foreground(&mut grade)?.success();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells the conformance kit to grade the programs on tokio in this directory.
pub(crate) fn name_programs(grade: &mut Command, directory: &Path) {
    let example = |arguments| format!("'{}'/{arguments}", directory.display());
    grade.args(["--handshake", "accio"]);
    grade.arg("--server").arg(example("server {port} {dir}"));
    grade.arg("--client").arg(example("client {host} {port} {file}"));
}
