//! The check for root.

use accio_harness::verdict::{Stop, Verdict};

/// Skips the case unless this process is root and the run is not `--unprivileged`.
pub(crate) fn ensure_root(unprivileged: bool) -> Verdict {
    if unprivileged {
        return Err(Stop::skip("left out by --unprivileged"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Stop::skip("not root"));
    }
    Ok(())
}
