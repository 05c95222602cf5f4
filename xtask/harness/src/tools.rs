//! Finds installed programs.

use std::env;
use std::path::PathBuf;

use super::verdict::{Stop, Verdict};

/// Directories of administration tools, which the PATH of a normal user may lack.
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Returns the path of the program `name`, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Returns the path of the program `name`, or a skip that names it if it is not installed.
pub fn require(name: &str) -> Verdict<PathBuf> {
    find(name).ok_or_else(|| Stop::skip(format!("{name} is not installed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_installed_programs_and_names_missing_ones() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert!(
            matches!(require("no-such-program"), Err(Stop::Skip(why)) if why.contains("no-such"))
        );
    }
}
