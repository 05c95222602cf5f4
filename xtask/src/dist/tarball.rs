//! Tarballs that depend on nothing but the content of their files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::process::checked_output;
use anyhow::Context;

use super::common::LIMIT;
use super::tree::{files, is_executable};

/// Writes `out/NAME.tar.gz`, where NAME is the last component of `root`.
pub(super) fn write(root: &Path, out: &Path, epoch: u64) -> anyhow::Result<PathBuf> {
    let name = root.file_name().context("the tree has no name")?;
    let mut gzip = Command::new("gzip");
    // -n leaves out the name and the time, which would change the bytes.
    gzip.args(["-n", "-9"]);
    let packed = checked_output(gzip, &pack(root, Path::new(name), epoch)?, LIMIT)?;
    let path = out.join(format!("{}.tar.gz", name.to_string_lossy()));
    fs::write(&path, packed)?;
    Ok(path)
}

/// Returns an archive of the files in `root`, with the directory `prefix` before their names.
pub(super) fn pack(root: &Path, prefix: &Path, epoch: u64) -> anyhow::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for path in files(root)? {
        let content = fs::read(&path)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if is_executable(&path)? { 0o755 } else { 0o644 });
        header.set_mtime(epoch);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, prefix.join(path.strip_prefix(root)?), &content[..])?;
    }
    Ok(builder.into_inner()?)
}
