//! Limits of the process.

use rustix::process::{Resource, getrlimit};

/// Returns how many descriptors the process may have open; `None` if there is no limit.
pub(crate) fn descriptor_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}
