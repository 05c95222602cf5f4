//! Finds installed programs.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::process;
use super::verdict::{Stop, Verdict};

/// Time limit for a program that should end immediately.
const LIMIT: Duration = Duration::from_secs(20);

/// Directories of administration tools, which the PATH of a normal user may lack.
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Returns the path of the program `name`, if it is installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain(ADMINISTRATORS.map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Returns the path of the program `name`, or a skip that names it if it is not installed.
pub fn require(name: &str) -> Verdict<PathBuf> {
    find(name).ok_or_else(|| Stop::skip(format!("{name} is not installed")))
}

/// Returns the path of strace; a skip if it is not installed or cannot trace processes here.
pub fn require_tracing() -> Verdict<PathBuf> {
    let strace = require("strace")?;
    let mut probe = Command::new(&strace);
    probe.args(["-o", "/dev/null", "true"]);
    process::checked_output(probe, b"", LIMIT)
        .map_err(|why| Stop::skip(format!("strace cannot trace: {why}")))?;
    Ok(strace)
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
