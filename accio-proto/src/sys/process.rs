//! Limits of the process.

use std::io;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// Returns how many descriptors the process may have open; `None` if there is no limit.
///
/// rustix assumes that this call cannot fail, but a seccomp filter may deny it.
pub(crate) fn descriptor_limit() -> io::Result<Option<u64>> {
    let (current, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    #[allow(clippy::useless_conversion, reason = "u32 on some 32-bit systems")]
    let limit = u64::from(current);
    Ok((current != RLIM_INFINITY).then_some(limit))
}
