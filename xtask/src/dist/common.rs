//! Constants of all packages, and the search for the tools that make them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use accio_harness::tools;

/// Time limit for each command, except builds.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
/// The version of the project.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The programs in the packages.
pub(super) const PROGRAMS: [&str; 4] = ["accio-client", "accio-server", "server-s", "accio-grade"];
/// The packages of the workspace with these programs.
pub(super) const PACKAGES: [&str; 4] =
    ["accio-client", "accio-server", "accio-simplified", "accio-grade"];
/// Directory of the files to be packaged. The metadata of cargo-deb and cargo-generate-rpm in
/// `accio-server/Cargo.toml` names it.
pub(super) const STAGE: &str = "target/dist/tree";

/// Returns the tool, or prints that `what` is skipped without it.
pub(super) fn tool(
    name: &str,
    what: &str,
    install: &str,
    stdout: &mut dyn Write,
) -> io::Result<Option<PathBuf>> {
    let found = tools::find(name);
    if found.is_none() {
        writeln!(stdout, "skipped: {what}: {name} is not installed ({install})")?;
    }
    Ok(found)
}
