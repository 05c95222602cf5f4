//! Reports of the results, for people and for programs.

pub(crate) mod gradescope;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod junit;
pub(crate) mod matrix;
pub(crate) mod table;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Checks that `path` can be written, before a class is graded.
pub(crate) fn try_out(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::Error::other(format!(
            "cannot write {}: it is a folder: name a file in it",
            path.display()
        )));
    }
    let part = begun(path, "")?;
    fs::remove_file(part)
}

/// Writes a file atomically: a reader sees the previous content or this one.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let part = begun(path, content)?;
    fs::rename(&part, path).map_err(|error| {
        // Without its place, the content is of no use.
        let _ = fs::remove_file(&part);
        named(path, &error)
    })
}

/// Writes the content to a file next to `path` and returns its path.
fn begun(path: &Path, content: impl AsRef<[u8]>) -> io::Result<PathBuf> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| named(path, &error))?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, content).map_err(|error| named(path, &error))?;
    Ok(part.into())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    let text = format!(
        "cannot write {}: {error}: name a place where you may write, on a disk with room",
        path.display()
    );
    io::Error::new(error.kind(), text)
}
