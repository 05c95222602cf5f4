//! `cargo xtask features --costs`: the number of crates and the time to compile them, for sets of features
//! that programs use.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use accio_harness::cargo::cargo;
use accio_harness::process::{AtDrop, Process, checked_output};
use anyhow::ensure;

/// Time limit for each build.
const LIMIT: Duration = Duration::from_secs(1800);

/// The packages and their sets of features.
const SETS: [(&str, &str); 15] = [
    ("accio-proto", ""),
    ("accio-proto", "client"),
    ("accio-proto", "server"),
    ("accio-proto", "client,server"),
    ("accio-proto", "client,server,digest"),
    ("accio-proto", "client,server,tls"),
    ("accio-proto", "server,serde"),
    ("accio-proto", "server,tracing"),
    ("accio-proto", "client,testing"),
    ("accio-tokio", "client"),
    ("accio-tokio", "server"),
    ("accio-tokio", "client,server"),
    ("accio-tokio", "client,server,digest"),
    ("accio-tokio", "client,server,tls"),
    ("accio-tokio", "client,object-store"),
];

/// Compiles each set in an empty directory and prints a table.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    writeln!(out, "| crate | features | crates | CPU time, s | time, s |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    for (package, features) in SETS {
        let crates = crates(package, features)?;
        let target = tempfile::tempdir()?;
        let mut build = cargo();
        build.args(["build", "--quiet", "--no-default-features", "--package", package]);
        build.args(["--features", features]).arg("--target-dir").arg(target.path());
        let started = Instant::now();
        let exit = Process::spawn_logged(build, None, AtDrop::Kill)?.finish(LIMIT)?;
        ensure!(exit.status.success(), "{package} does not build with {features:?}");
        let (cpu, wall) = (exit.cpu.as_secs_f64(), started.elapsed().as_secs_f64());
        let name = if features.is_empty() { "none" } else { features };
        writeln!(out, "| {package} | {name} | {crates} | {cpu:.1} | {wall:.1} |")?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the number of crates in `cargo tree`, including those that only run during the build.
fn crates(package: &str, features: &str) -> anyhow::Result<usize> {
    let mut tree = cargo();
    tree.args(["tree", "--edges", "normal,build", "--prefix", "none", "--no-default-features"]);
    tree.args(["--package", package, "--features", features]);
    let text = checked_output(tree, b"", LIMIT)?;
    let text = String::from_utf8_lossy(&text);
    let names: BTreeSet<&str> = text
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty())
        .collect();
    Ok(names.len())
}
