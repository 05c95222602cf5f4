//! Runs cargo to build the programs under test.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process;

/// The packages of the programs under test.
const PACKAGES: [&str; 3] = ["accio-server", "accio-client", "accio-simplified"];

/// Returns a command for the cargo that started this process.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds the programs for release and returns their directory. If the build fails, cargo prints
/// the reason, and this returns `None`.
pub fn build() -> io::Result<Option<PathBuf>> {
    let mut command = cargo();
    command.args(["build", "--release", "--bins"]);
    // The tools also run server-s without fast paths.
    command.args(["--features", "accio-simplified/diagnostics"]);
    PACKAGES.iter().for_each(|package| {
        command.args(["--package", package]);
    });
    if !process::foreground(&mut command)?.success() {
        return Ok(None);
    }
    // This program is target/PROFILE/NAME.
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent);
    let target =
        target.ok_or_else(|| io::Error::other("this program is not in a target directory"))?;
    Ok(Some(target.join("release")))
}
