//! Incompatible changes of the libraries, found by cargo-semver-checks.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use accio_harness::process::{checked_output, foreground};

/// The third-party tool.
pub(crate) const TOOL: &str = "cargo-semver-checks";
/// Time limit for commands that only look something up.
const LIMIT: Duration = Duration::from_secs(60);

/// The outcome of the check.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compatibility {
    /// No incompatible change, or one that the version number allows.
    Compatible,
    /// The tool has printed what is incompatible, or why it cannot compare.
    Incompatible,
    /// There was no check, because the tool is missing.
    NoTool,
    /// There was no check, because there is nothing to compare with.
    NoRelease,
}

/// Compares `packages` with a git revision, or with the last release if there is none.
pub(crate) fn check(
    root: &Path,
    packages: &[&str],
    baseline: Option<&str>,
) -> anyhow::Result<Compatibility> {
    if !is_installed() {
        return Ok(Compatibility::NoTool);
    }
    let Some(baseline) = baseline.map(str::to_owned).or_else(|| last_release(root)) else {
        return Ok(Compatibility::NoRelease);
    };
    let mut tool = Command::new(TOOL);
    // It sets the toolchain of its child processes itself.
    tool.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    tool.current_dir(root).args(["semver-checks", "--all-features", "--baseline-rev", &baseline]);
    tool.args(packages.iter().flat_map(|package| ["--package", package]));
    Ok(match foreground(&mut tool)?.success() {
        true => Compatibility::Compatible,
        false => Compatibility::Incompatible,
    })
}

fn is_installed() -> bool {
    let mut command = Command::new(TOOL);
    command.args(["semver-checks", "--version"]);
    checked_output(command, b"", LIMIT).is_ok()
}

/// Returns the tag of the last release before the current revision.
fn last_release(root: &Path) -> Option<String> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]);
    let output = checked_output(git, b"", LIMIT).ok()?;
    Some(String::from_utf8_lossy(&output).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_release_is_a_tag_with_a_version() {
        let dir = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(dir.path());
            git.args(["-c", "user.name=Test", "-c", "user.email=test@example.org"]).args(arguments);
            checked_output(git, b"", LIMIT).unwrap();
        };
        let commit = || git(&["commit", "--quiet", "--allow-empty", "--message", "A change"]);
        git(&["init", "--quiet"]);
        commit();
        git(&["tag", "measured"]);
        assert_eq!(last_release(dir.path()), None);
        for release in ["v0.1.0", "v0.2.0"] {
            commit();
            git(&["tag", release]);
        }
        commit();
        assert_eq!(last_release(dir.path()), Some("v0.2.0".into()));
    }
}
