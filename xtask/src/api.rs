//! `cargo xtask api`: compares the library's public items with a snapshot of one item per line, so
//! that a change of the public API shows in the diff.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use accio_harness::process::checked_output;

/// The third-party tool that lists the items; it needs a nightly rustdoc.
const TOOL: &str = "cargo-public-api";
/// Time limit to build the documentation.
const LIMIT: Duration = Duration::from_secs(1800);
const SNAPSHOT: &str = "accio-proto/public-api.txt";
/// The features that other projects use.
const FEATURES: &str = "client,server";

/// The options of `cargo xtask api`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Update the snapshot
    #[arg(long)]
    write: bool,
    /// Fail if cargo-public-api or a nightly toolchain is missing
    #[arg(long)]
    strict: bool,
}

/// Compares the public items with the snapshot, or updates the snapshot.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(now) = items(Path::new("."))? else {
        writeln!(io::stdout().lock(), "{}", skipped())?;
        return Ok(if arguments.strict { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    };
    if arguments.write {
        fs::write(SNAPSHOT, now)?;
        return Ok(ExitCode::SUCCESS);
    }
    let differences = differences(&fs::read_to_string(SNAPSHOT)?, &now);
    let mut stdout = io::stdout().lock();
    for difference in &differences {
        writeln!(stdout, "{difference}")?;
    }
    if differences.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        stdout,
        "if this is intended: cargo xtask api --write, and add a line to CHANGELOG.md"
    )?;
    Ok(ExitCode::FAILURE)
}

/// Returns the items as the tool lists them, or `None` if it or a nightly toolchain is missing.
fn items(root: &Path) -> anyhow::Result<Option<String>> {
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        checked_output(command, b"", LIMIT).is_ok()
    };
    if !runs(TOOL, &["--version"]) || !runs("rustc", &["+nightly", "--version"]) {
        return Ok(None);
    }
    let mut tool = Command::new(TOOL);
    // These variables would make rustup use the current toolchain in all child processes.
    tool.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    tool.current_dir(root).args(["public-api", "--package", "accio-proto", "--color", "never"]);
    // Omit blanket and auto trait implementations, which follow from the other items.
    tool.args(["-sss", "--no-default-features", "--features", FEATURES]);
    tool.args(["--target-dir", "target/public-api"]);
    let output = checked_output(tool, b"", LIMIT)?;
    Ok(Some(String::from_utf8_lossy(&output).into_owned()))
}

fn skipped() -> String {
    format!(
        "skipped: the public items: this needs {TOOL} (cargo install {TOOL}) and a nightly toolchain \
         (rustup toolchain install nightly --profile minimal)"
    )
}

/// Returns the lines that are only in one of the texts, with a sign.
fn differences(was: &str, is: &str) -> Vec<String> {
    let missing = |from: &str, other: &str, sign: char| -> Vec<String> {
        let others: std::collections::BTreeSet<_> = other.lines().collect();
        let lines = from.lines().filter(|line| !others.contains(line));
        lines.map(|line| format!("{sign} {line}")).collect()
    };
    [missing(was, is, '-'), missing(is, was, '+')].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_removed_and_added_lines() {
        assert_eq!(differences("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
        assert!(differences("a\nb\n", "a\nb\n").is_empty());
    }

    /// Takes half a minute and needs a nightly toolchain, so it does not run by default. Run it
    /// with `cargo test -p xtask -- --ignored public_items`.
    #[test]
    #[ignore = "builds the documentation with a nightly toolchain"]
    fn the_public_items_match_the_snapshot() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let Some(now) = items(&root).unwrap() else { panic!("{}", skipped()) };
        let was = fs::read_to_string(root.join(SNAPSHOT)).unwrap();
        assert_eq!(differences(&was, &now), Vec::<String>::new());
    }
}
