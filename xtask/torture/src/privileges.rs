//! Cases that need root.

use accio_harness::verdict::{Stop, Verdict};

/// A skip unless this process is root and the run may use that.
pub(crate) fn ensure_root(unprivileged: bool) -> Verdict {
    if unprivileged {
        return Err(Stop::skip("left out by --unprivileged"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Stop::skip("not root"));
    }
    Ok(())
}
