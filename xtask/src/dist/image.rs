//! The container image, an archive in the OCI format. buildah makes it without a daemon.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::process::checked_output;

use super::build::Target;
use super::common::{LIMIT, STAGE, VERSION, tool};
use super::tarball;

/// Makes the image, for static programs only.
pub(super) fn write(
    target: &Target,
    out: &Path,
    epoch: u64,
    stdout: &mut dyn Write,
) -> anyhow::Result<Option<PathBuf>> {
    if !target.name().contains("musl") {
        writeln!(
            stdout,
            "skipped: the image: it needs static programs (--target x86_64-unknown-linux-musl)"
        )?;
        return Ok(None);
    }
    let Some(buildah) = tool("buildah", "the image", "apt install buildah", stdout)? else {
        return Ok(None);
    };
    let architecture = target.debian_arch();
    // The image has an empty directory for the user of the volume.
    let data = Path::new(STAGE).join("data");
    fs::create_dir_all(&data)?;
    let work = tempfile::tempdir_in(out)?;
    let name = format!("accio-{VERSION}-{architecture}.oci");
    let layout = work.path().join(&name);
    let mut build = Command::new(buildah);
    build.args(["build", "--file", "packaging/Containerfile", "--arch", architecture]);
    build.args(["--timestamp", &epoch.to_string(), "--no-cache", "--quiet"]);
    build.args(["--identity-label=false", "--build-arg", &format!("VERSION={VERSION}"), "--tag"]);
    build.arg(format!("oci:{}:accio:{VERSION}", layout.display())).arg(STAGE);
    checked_output(build, b"", LIMIT)?;
    fs::remove_dir(data)?;
    let archive = out.join(format!("{name}.tar"));
    fs::write(&archive, tarball::pack(&layout, Path::new(""), epoch)?)?;
    Ok(Some(archive))
}
