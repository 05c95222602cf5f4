//! Hidden files that a killed process left in a directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::sys::file as calls;

/// Removes what earlier processes left, unless another one uses the directory right now.
///
/// Every user of a directory holds a shared lock on it for as long as it is open, so whoever gets
/// the lock alone is the only one there.
pub(super) fn remove(dir: &OwnedFd, path: &Path) {
    match calls::lock_alone(dir) {
        Ok(()) => {
            if let Err(error) = remove_all(dir) {
                log::warn!("cannot look for leftovers in {path:?}: {error}");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            log::warn!("another server uses {path:?}: both write files of the same names");
        }
        // A file system without locks: nobody can tell, so nothing is removed.
        Err(error) => log::debug!("cannot lock {path:?}: {error}"),
    }
    if let Err(error) = calls::lock_shared(dir) {
        log::debug!("cannot lock {path:?}: {error}");
    }
}

fn remove_all(dir: &OwnedFd) -> io::Result<()> {
    for name in calls::names(dir)? {
        let name = name?;
        if let Some(name) = name.to_str().ok().filter(|name| is_hidden_name(name)) {
            log::info!("removing {name:?}, left by a server that was killed");
            if let Err(error) = calls::unlink(dir, name) {
                log::warn!("cannot remove {name:?}: {error}");
            }
        }
    }
    Ok(())
}

/// Whether the name is one of those that `Dir::hidden_name` makes: `.ID.file.PID-COUNT`.
fn is_hidden_name(name: &str) -> bool {
    let parts = name
        .strip_prefix('.')
        .and_then(|name| name.split_once(".file."))
        .and_then(|(id, rest)| rest.split_once('-').map(|(pid, count)| [id, pid, count]));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    parts.is_some_and(|parts| parts.into_iter().all(is_number))
}
