//! `cargo xtask api`: compares the public items of each library with a snapshot of one item per line,
//! so that a change of the public API shows in the diff, and then with an earlier revision, so that an
//! incompatible change shows as one.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use accio_harness::process::checked_output;

use crate::semver::{self, Compatibility};

/// The third-party tool that lists the items; it needs a nightly rustdoc.
const TOOL: &str = "cargo-public-api";
/// Time limit to build the documentation.
const LIMIT: Duration = Duration::from_secs(1800);
/// A snapshot, in the directory of its crate.
const SNAPSHOT: &str = "public-api.txt";

/// A library that other projects use.
struct Library {
    name: &'static str,
    /// The features that add items. `network` of accio-store adds none, but dozens of crates.
    features: &'static [&'static str],
}

/// `accio-cli` is published for the programs only.
const LIBRARIES: [Library; 3] = [
    Library { name: "accio-proto", features: &["--all-features"] },
    Library { name: "accio-tokio", features: &["--all-features"] },
    Library { name: "accio-store", features: &[] },
];

/// The options of `cargo xtask api`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Update the snapshot
    #[arg(long)]
    write: bool,
    /// Fail if a tool that is needed is missing
    #[arg(long)]
    strict: bool,
    /// Look for incompatible changes since this git revision [default: the last release]
    #[arg(long, value_name = "REVISION", conflicts_with = "write")]
    baseline: Option<String>,
}

/// Compares the public items with the snapshots and an earlier revision, or updates the snapshots.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut good = match has_tool() {
        true => compare_with_snapshots(arguments.write)?,
        false => {
            writeln!(io::stdout().lock(), "{}", skipped())?;
            !arguments.strict
        }
    };
    if !arguments.write {
        let names = LIBRARIES.map(|library| library.name);
        let baseline = arguments.baseline.as_deref();
        match semver::check(Path::new("."), &names, baseline)? {
            Compatibility::Compatible => {}
            Compatibility::Incompatible => good = false,
            Compatibility::NoTool => {
                let tool = semver::TOOL;
                let mut stdout = io::stdout().lock();
                writeln!(
                    stdout,
                    "skipped: incompatible changes: this needs {tool} (cargo install --locked {tool})"
                )?;
                good &= !arguments.strict;
            }
            Compatibility::NoRelease => writeln!(
                io::stdout().lock(),
                "skipped: incompatible changes: there is no release yet: compare with any revision by \
                 --baseline REVISION"
            )?,
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns whether the snapshots contain the public items, and prints the differences; or updates
/// the snapshots.
fn compare_with_snapshots(write: bool) -> anyhow::Result<bool> {
    let mut stdout = io::stdout().lock();
    let mut is_same = true;
    for library in &LIBRARIES {
        let snapshot = Path::new(library.name).join(SNAPSHOT);
        let now = library.items(Path::new("."))?;
        if write {
            fs::write(snapshot, now)?;
            continue;
        }
        for difference in differences(&fs::read_to_string(snapshot)?, &now) {
            is_same = false;
            writeln!(stdout, "{}: {difference}", library.name)?;
        }
    }
    if !is_same {
        writeln!(
            stdout,
            "if this is intended: cargo xtask api --write, and add a line to CHANGELOG.md"
        )?;
    }
    Ok(is_same)
}

/// Returns whether the tool and a nightly toolchain are installed.
fn has_tool() -> bool {
    let runs = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        checked_output(command, b"", LIMIT).is_ok()
    };
    runs(TOOL, &["--version"]) && runs("rustc", &["+nightly", "--version"])
}

impl Library {
    /// Returns the items as the tool lists them.
    fn items(&self, root: &Path) -> anyhow::Result<String> {
        let mut tool = Command::new(TOOL);
        // These variables would make rustup use the current toolchain in all child processes.
        tool.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
        tool.current_dir(root).args(["public-api", "--package", self.name, "--color", "never"]);
        // Omit blanket and auto trait implementations, which follow from the other items.
        tool.arg("-sss").args(self.features);
        tool.args(["--target-dir", "target/public-api"]);
        let output = checked_output(tool, b"", LIMIT)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }
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
    fn the_public_items_match_the_snapshots() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert!(has_tool(), "{}", skipped());
        for library in &LIBRARIES {
            let was = fs::read_to_string(root.join(library.name).join(SNAPSHOT)).unwrap();
            let now = library.items(&root).unwrap();
            assert_eq!(differences(&was, &now), Vec::<String>::new(), "{}", library.name);
        }
    }
}
