//! Runs cargo to build the programs under test.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process;

/// The packages of the programs under test.
const PACKAGES: [&str; 3] = ["accio-server", "accio-client", "accio-simplified"];

/// Prefixes of the variables that describe this process's own package. Build scripts that depend on them,
/// such as that of ring, would run again, and everything that uses their crate would be compiled again.
const OWN_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// Returns a command for the cargo that started this process.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if OWN_PACKAGE.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(name);
        }
    }
    command
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_does_not_inherit_the_variables_of_this_package() {
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        let removed: Vec<_> =
            cargo().get_envs().map(|(name, value)| (name.to_owned(), value.is_none())).collect();
        assert!(removed.contains(&("CARGO_MANIFEST_DIR".into(), true)), "{removed:?}");
    }
}
