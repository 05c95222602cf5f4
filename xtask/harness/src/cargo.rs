//! Runs cargo, for the programs under test.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process;

/// The packages whose programs are tested.
const PACKAGES: [&str; 3] = ["accio-server", "accio-client", "accio-simplified"];

/// Returns a command for the cargo that runs this process.
pub fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds the programs for release and returns their folder, or `None` if the build failed, which
/// cargo has reported.
pub fn build() -> io::Result<Option<PathBuf>> {
    let mut command = cargo();
    command.args(["build", "--release", "--bins"]);
    // server-s without fast paths is tested and measured too.
    command.args(["--features", "accio-simplified/diagnostics"]);
    PACKAGES.iter().for_each(|package| {
        command.args(["--package", package]);
    });
    if !process::foreground(&mut command)?.success() {
        return Ok(None);
    }
    // This program is target/debug/NAME, or the like in another target folder.
    let own = env::current_exe()?;
    let target = own.parent().and_then(Path::parent);
    let target = target.ok_or_else(|| io::Error::other("this program is in no target folder"))?;
    Ok(Some(target.join("release")))
}
