//! The limit on open descriptors.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, rlim_t, setrlimit};

/// Raises the soft limit on open descriptors to the hard limit.
pub fn raise_descriptor_limit() {
    let (current, maximum) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => return log::warn!("cannot read the descriptor limit: {error}"),
    };
    if current == maximum {
        return;
    }
    let (from, to) = (describe(current), describe(maximum));
    match setrlimit(Resource::RLIMIT_NOFILE, maximum, maximum) {
        Ok(()) => log::debug!("descriptor limit raised from {from} to {to}"),
        Err(error) => log::warn!("cannot raise the descriptor limit of {from}: {error}"),
    }
}

/// Returns how many descriptors the process may have open; `None` if there is no limit.
#[cfg(feature = "metrics")]
pub(crate) fn descriptor_limit() -> std::io::Result<Option<rlim_t>> {
    let (current, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok((current != RLIM_INFINITY).then_some(current))
}

fn describe(limit: rlim_t) -> String {
    if limit == RLIM_INFINITY { "infinity".to_owned() } else { limit.to_string() }
}
