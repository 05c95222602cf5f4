//! The software bill of materials: the crates in each program, in the CycloneDX format.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::process::checked_output;
use anyhow::Context;

use super::build::Target;
use super::common::{LIMIT, PACKAGES, VERSION, tool};

/// Writes one document for each program.
pub(super) fn write(
    target: &Target,
    out: &Path,
    epoch: u64,
    stdout: &mut dyn Write,
) -> anyhow::Result<Vec<PathBuf>> {
    let install = "cargo install cargo-cyclonedx --locked";
    let Some(path) = tool("cargo-cyclonedx", "the SBOM", install, stdout)? else {
        return Ok(Vec::new());
    };
    let mut made = Vec::new();
    for package in PACKAGES {
        let dir = if package == "accio-grade" { "xtask/grade" } else { package };
        // The tool writes next to Cargo.toml, for every member of the workspace.
        let file = format!("{package}-dist-sbom");
        let mut command = Command::new(&path);
        command.args(["cyclonedx", "--format", "json", "--spec-version", "1.5"]);
        command.args(["--target", target.name(), "--override-filename", &file]);
        command.args(["--manifest-path"]).arg(Path::new(dir).join("Cargo.toml"));
        command.env("SOURCE_DATE_EPOCH", epoch.to_string());
        checked_output(command, b"", LIMIT)?;
        let written = Path::new(dir).join(format!("{file}.json"));
        let text = fs::read_to_string(&written)
            .with_context(|| format!("cannot read {}", written.display()))?;
        remove_all(Path::new("."), &format!("{file}.json"))?;
        let path = out.join(format!("{package}-{VERSION}-{}.cdx.json", target.name()));
        fs::write(&path, reproducible(&text)?)?;
        made.push(path);
    }
    Ok(made)
}

/// Removes what differs from one run and machine to another: the serial number and the path of the
/// workspace.
fn reproducible(text: &str) -> anyhow::Result<String> {
    let workspace = std::env::current_dir()?.display().to_string();
    let mut document: serde_json::Value =
        serde_json::from_str(&text.replace(&format!("file://{workspace}"), "file:///accio"))?;
    if let Some(document) = document.as_object_mut() {
        document.remove("serialNumber");
    }
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// Removes the files of this name in the directories of the workspace.
fn remove_all(dir: &Path, name: &str) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name() == name {
            fs::remove_file(path)?;
        } else if entry.file_type()?.is_dir() && path.join("Cargo.toml").exists()
            || path.ends_with("xtask")
        {
            remove_all(&path, name)?;
        }
    }
    Ok(())
}
