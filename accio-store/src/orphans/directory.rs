//! Unfinished uploads in a directory.

use std::io;
use std::path::Path;

/// Removes staging files from a directory that is used as a store; returns their number.
pub(crate) fn reap(directory: &Path) -> io::Result<usize> {
    let mut count = 0;
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let staged = name.to_str().and_then(|name| name.split_once(".file#"));
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if staged.is_some_and(|(id, stage)| number(id) && number(stage)) {
            std::fs::remove_file(directory.join(name))?;
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_only_staging_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["1.file", "1.file#1", "12.file#30", "notes.file#1", "1.file#", "1.file#x"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(reap(dir.path()).unwrap(), 2);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
        assert_eq!(reap(&dir.path().join("none")).unwrap(), 0);
    }
}
