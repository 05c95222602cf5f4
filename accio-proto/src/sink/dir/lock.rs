//! The lock that keeps two servers out of one directory, and the removal of orphaned hidden files.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::existing::Existing;
use super::hidden_name::is_hidden_name;
use crate::program_log as log;
use crate::sys::file as calls;

/// How long to wait for another server that is stopping, or that is starting at the same time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Interval between attempts.
const INTERVAL: Duration = Duration::from_millis(10);

/// Locks the directory for as long as `dir` is open, and removes hidden files that were left by a
/// killed server.
///
/// The directory itself is locked. That needs no lock file, and the kernel supports it for every
/// file system. A server that replaces files needs an exclusive lock; servers that keep existing
/// files share one. Returns whether another server uses the directory.
///
/// # Errors
///
/// Returns [`WouldBlock`](io::ErrorKind::WouldBlock) if another server uses the directory and at
/// least one of the two replaces existing files.
pub(super) fn lock(dir: &OwnedFd, path: &Path, existing: Existing) -> io::Result<bool> {
    let end = Instant::now() + PATIENCE;
    loop {
        match try_lock(dir, path, existing) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(INTERVAL);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                log::warn!("cannot lock {path:?}: {error}: make sure that no other server uses it");
                return Ok(false);
            }
            locked => return locked,
        }
    }
}

fn try_lock(dir: &OwnedFd, path: &Path, existing: Existing) -> io::Result<bool> {
    match calls::lock_alone(dir) {
        Ok(()) => {
            if let Err(error) = remove_orphans(dir) {
                log::warn!("cannot look for orphaned files in {path:?}: {error}");
            }
            if existing == Existing::Keep {
                calls::lock_shared(dir)?;
            }
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && existing == Existing::Keep => {
            calls::lock_shared(dir).map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// Removes hidden files. The caller must hold the exclusive lock: otherwise they may be uploads of
/// another server.
fn remove_orphans(dir: &OwnedFd) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sink::DirSink;

    /// Three servers in turn: the second starts while the first removes files, and the third must
    /// notice the second.
    #[test]
    fn a_server_that_starts_during_another_ones_cleanup_gets_its_lock() {
        let keep = || DirSink::options().existing(Existing::Keep);
        let dir = tempfile::tempdir().unwrap();
        let first = calls::open_dir(dir.path()).unwrap();
        calls::lock_alone(&first).unwrap();
        let path = dir.path().to_owned();
        let second = std::thread::spawn(move || keep().create(path).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        drop(first);
        let second = second.join().unwrap();
        let upload = dir.path().join(".7.file.0123456789abcdef");
        fs::write(&upload, "an upload of the second").unwrap();
        let third = keep().create(dir.path()).unwrap();
        assert!(upload.exists(), "the third removed an upload of the second");
        drop((second, third));
    }
}
