//! Programs that are installed on this machine.

use std::env;
use std::path::PathBuf;

use super::verdict::{Stop, Verdict};

/// Where Debian keeps programs of administrators, which PATH may lack.
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Returns the path of the program `name`, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Returns the path of the program `name`; a skip that names it if it is not installed.
pub fn require(name: &str) -> Verdict<PathBuf> {
    find(name).ok_or_else(|| Stop::skip(format!("no {name} on this machine")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_program_is_found_and_a_missing_one_is_named() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert!(
            matches!(require("no-such-program"), Err(Stop::Skip(why)) if why.contains("no-such"))
        );
    }
}
