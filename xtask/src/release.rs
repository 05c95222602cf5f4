//! `cargo xtask release VERSION`: the local part of a release.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use accio_harness::cargo::cargo;
use accio_harness::process::checked_output;
use anyhow::{Context, bail, ensure};

/// Time limit for each command.
const LIMIT: Duration = Duration::from_secs(600);
const MANIFEST: &str = "Cargo.toml";
const CHANGELOG: &str = "CHANGELOG.md";
/// The message of the tag.
const MESSAGE: &str = "target/release-message.md";
const UNRELEASED: &str = "## Unreleased\n";

/// The options of `cargo xtask release`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Version to release, e.g. 0.2.0
    #[arg(value_parser = version)]
    version: String,
}

/// Changes the files and prints the commands that publish them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let new = &arguments.version;
    let repository = repository()?;
    let mut git = Command::new("git");
    git.args(["status", "--porcelain", "--untracked-files=no"]);
    let changed = checked_output(git, b"", LIMIT)?;
    ensure!(changed.is_empty(), "the work tree has changes: commit them first");

    let manifest = fs::read_to_string(MANIFEST)?;
    let changelog = fs::read_to_string(CHANGELOG)?;
    let date = checked_output(date_command(), b"", LIMIT)?;
    let date = String::from_utf8_lossy(&date).trim().to_owned();
    let (changelog, section) = dated(&changelog, new, &date)?;
    fs::write(MANIFEST, with_version(&manifest, new)?)?;
    fs::write(CHANGELOG, changelog)?;
    for file in ["packaging/compose.yaml", "packaging/kubernetes/accio-server.yaml"] {
        fs::write(file, with_image(&fs::read_to_string(file)?, new))?;
    }
    let mut lock = cargo();
    lock.args(["update", "--workspace", "--offline"]);
    checked_output(lock, b"", LIMIT)?;
    fs::create_dir_all(Path::new(MESSAGE).parent().unwrap_or(Path::new("")))?;
    fs::write(MESSAGE, format!("Accio {new}\n\n{section}"))?;

    let mut stdout = io::stdout().lock();
    writeln!(
        stdout,
        "set the version {new} in {MANIFEST} and Cargo.lock, and dated its section in {CHANGELOG}\n\n\
         Review the changes, then publish them; the workflow `release` does the rest at {repository}:\n\n  \
         git commit --all --message 'Release {new}'\n  \
         git tag --annotate v{new} --cleanup=whitespace --file {MESSAGE}\n  \
         git push origin HEAD v{new}"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the address of the repository, which is set in the workspace's Cargo.toml only.
pub(crate) fn repository() -> anyhow::Result<String> {
    let manifest = fs::read_to_string(MANIFEST).context("run this in the repository")?;
    match value(&manifest, "repository") {
        Some(address) if !address.is_empty() => Ok(address.to_owned()),
        _ => bail!(
            "the address of the repository is not set: set `repository` under [workspace.package] \
             in {MANIFEST}"
        ),
    }
}

fn date_command() -> Command {
    let mut date = Command::new("date");
    date.args(["-u", "+%Y-%m-%d"]);
    date
}

/// Parses a version of three numbers, optionally with a suffix such as `-rc.1`.
fn version(value: &str) -> Result<String, String> {
    let (numbers, suffix) = value.split_once('-').unwrap_or((value, "x"));
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let parts: Vec<&str> = numbers.split('.').collect();
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '.';
    if parts.len() == 3
        && parts.into_iter().all(is_number)
        && !suffix.is_empty()
        && suffix.chars().all(letter)
    {
        Ok(value.to_owned())
    } else {
        Err("use three numbers such as 0.2.0, optionally with a suffix such as -rc.1".to_owned())
    }
}

/// Returns the value of the first key of this name in the text of a Cargo.toml.
fn value<'a>(manifest: &'a str, key: &str) -> Option<&'a str> {
    let line =
        manifest.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_prefix('='))?;
    line.trim().strip_prefix('"')?.strip_suffix('"')
}

/// Sets the version of the workspace and of its own crates.
fn with_version(manifest: &str, new: &str) -> anyhow::Result<String> {
    let old = value(manifest, "version").context("Cargo.toml has no version")?;
    let (from, to) = (format!("version = \"{old}\""), format!("version = \"{new}\""));
    let is_own = |line: &&str| line.starts_with("version = ") || line.contains("{ path = ");
    let lines = manifest.split_inclusive('\n');
    Ok(lines
        .map(|line| if is_own(&line) { line.replace(&from, &to) } else { line.to_owned() })
        .collect())
}

/// Sets the version of the image in the files of a deployment.
fn with_image(text: &str, new: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| match line.split_once("image: accio:") {
        Some((before, _)) => format!("{before}image: accio:{new}\n"),
        None => line.to_owned(),
    });
    lines.collect()
}

/// Returns the changelog with a section for the version, and the content of that section.
fn dated(changelog: &str, new: &str, date: &str) -> anyhow::Result<(String, String)> {
    let (before, rest) =
        changelog.split_once(UNRELEASED).context("CHANGELOG.md has no section Unreleased")?;
    let end = rest.find("\n## ").map_or(rest.len(), |place| place + 1);
    let (section, older) = rest.split_at(end);
    ensure!(!section.trim().is_empty(), "nothing is listed under Unreleased in {CHANGELOG}");
    ensure!(!older.contains(&format!("## {new} ")), "{CHANGELOG} has a section {new} already");
    let text = format!("{before}{UNRELEASED}\n## {new} - {date}\n{section}{older}");
    Ok((text, section.trim_start().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_versions_of_three_numbers() {
        for good in ["0.2.0", "1.10.3", "1.0.0-rc.1"] {
            assert_eq!(version(good).as_deref(), Ok(good));
        }
        for bad in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.02.3", "1.2.3-", "1.2.x", "1.2.3 "] {
            version(bad).unwrap_err();
        }
    }

    #[test]
    fn the_changelog_gets_a_dated_section() {
        let text = "# Changelog\n\n## Unreleased\n\n- new\n\n## 0.1.0 - 2026-01-01\n\n- old\n";
        let (changed, section) = dated(text, "0.2.0", "2026-02-02").unwrap();
        assert_eq!(
            changed,
            "# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-02-02\n\n- new\n\n\
             ## 0.1.0 - 2026-01-01\n\n- old\n"
        );
        assert_eq!(section, "- new\n\n");
        assert!(dated(&changed, "0.3.0", "2026-03-03").is_err(), "nothing to release");
        assert!(dated(text, "0.1.0", "2026-03-03").is_err(), "released already");
        let first = dated("## Unreleased\n\n- new\n", "0.1.0", "2026-01-01").unwrap();
        assert_eq!(first.0, "## Unreleased\n\n## 0.1.0 - 2026-01-01\n\n- new\n");
    }

    #[test]
    fn only_own_versions_are_set() {
        let text = "[workspace.package]\nversion = \"0.1.0\"\n\n[workspace.dependencies]\n\
                    accio-cli = { path = \"accio-cli\", version = \"0.1.0\" }\n\
                    other = { version = \"0.1.0\" }\n";
        let changed = with_version(text, "0.2.0").unwrap();
        assert_eq!(changed.matches("0.2.0").count(), 2);
        assert!(changed.contains("other = { version = \"0.1.0\" }"));
        assert_eq!(with_version(text, "0.1.0").unwrap(), text, "the first release");
    }

    #[test]
    fn every_file_with_the_version_is_set_by_a_release() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |file: &str| fs::read_to_string(root.join(file)).unwrap();
        for file in ["packaging/compose.yaml", "packaging/kubernetes/accio-server.yaml"] {
            let text = read(file);
            assert!(text.contains(&format!("image: accio:{}\n", crate::dist::VERSION)), "{file}");
            assert!(with_image(&text, "9.9.9").contains("image: accio:9.9.9\n"), "{file}");
        }
        let manifest = with_version(&read(MANIFEST), "9.9.9").unwrap();
        assert!(!manifest.contains(&format!("version = \"{}\" }}\n", crate::dist::VERSION)));
        assert!(value(&manifest, "repository").is_some(), "one place for the address");
    }
}
