//! Writes the results in several formats.

pub(crate) mod classroom;
pub(crate) mod csv;
pub(crate) mod gradescope;
pub(crate) mod html;
mod html_details;
mod html_text;
pub(crate) mod json;
pub(crate) mod junit;
pub(crate) mod matrix;
pub(crate) mod saved;
pub(crate) mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use accio_proto::os_error_text;

/// Checks, before the grading, that `path` can be written.
pub(crate) fn try_out(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::Error::other(format!(
            "cannot write {}: it is a directory: add a file name",
            path.display()
        )));
    }
    let part = write_part(path, "")?;
    fs::remove_file(part)
}

/// Writes a file atomically: a reader sees the previous content or this one.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let part = write_part(path, content)?;
    fs::rename(&part, path).map_err(|error| {
        // The temporary file is of no use then.
        let _ = fs::remove_file(&part);
        named(path, &error)
    })
}

/// Writes the content to a file next to `path` and returns its path.
fn write_part(path: &Path, content: impl AsRef<[u8]>) -> io::Result<PathBuf> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(|error| named(path, &error))?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, content).map_err(|error| named(path, &error))?;
    Ok(part.into())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    let text = format!(
        "cannot write {}: {}: choose a directory that you may write to, on a disk with free space",
        path.display(),
        os_error_text(error)
    );
    io::Error::new(error.kind(), text)
}
