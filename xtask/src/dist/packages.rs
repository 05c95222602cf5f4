//! Packages of Linux distributions, made by cargo-deb and cargo-generate-rpm from the metadata in
//! `accio-server/Cargo.toml`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::process::checked_output;

use super::build::Target;
use super::common::{LIMIT, VERSION, tool};

/// Makes the Debian package.
pub(super) fn deb(
    target: &Target,
    out: &Path,
    epoch: u64,
    stdout: &mut dyn Write,
) -> anyhow::Result<Option<PathBuf>> {
    let install = "cargo install cargo-deb --locked";
    let Some(path) = tool("cargo-deb", "the Debian package", install, stdout)? else {
        return Ok(None);
    };
    let architecture = target.debian_arch();
    let package = out.join(format!("accio_{VERSION}-1_{architecture}.deb"));
    let mut deb = Command::new(path);
    // The target gives the architecture; the programs are in the stage already.
    deb.args(["deb", "--package", "accio-server", "--no-build", "--no-strip", "--locked"]);
    deb.args(["--target", target.name(), "--output"]).arg(&package);
    deb.env("SOURCE_DATE_EPOCH", epoch.to_string());
    if target.name().contains("musl") {
        deb.args(["--variant", "static"]);
    }
    checked_output(deb, b"", LIMIT)?;
    Ok(Some(package))
}

/// Makes the RPM package.
pub(super) fn rpm(
    target: &Target,
    out: &Path,
    epoch: u64,
    stdout: &mut dyn Write,
) -> anyhow::Result<Option<PathBuf>> {
    let install = "cargo install cargo-generate-rpm --locked";
    let Some(path) = tool("cargo-generate-rpm", "the RPM package", install, stdout)? else {
        return Ok(None);
    };
    let processor = target.processor();
    let package = out.join(format!("accio-{VERSION}-1.{processor}.rpm"));
    let mut rpm = Command::new(path);
    rpm.args(["generate-rpm", "--package", "accio-server", "--arch", processor]);
    rpm.args(["--source-date", &epoch.to_string(), "--output"]).arg(&package);
    // A statically linked program requires no libraries.
    let requires = if target.name().contains("musl") { "disabled" } else { "builtin" };
    rpm.args(["--auto-req", requires]);
    checked_output(rpm, b"", LIMIT)?;
    Ok(Some(package))
}
