//! What came of the checks, for people and for programs.

pub(crate) mod gradescope;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod junit;
pub(crate) mod matrix;
pub(crate) mod table;

use std::fs;
use std::io;
use std::path::Path;

/// Writes a file so that whoever reads it sees the one before or this one, never a part.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> io::Result<()> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(named)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    fs::write(&name, content).and_then(|()| fs::rename(&name, path)).map_err(named)
}
