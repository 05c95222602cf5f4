//! The lock that keeps two servers out of one directory, and what a killed server left there.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Existing;
use super::hidden_name::is_hidden_name;
use crate::sys::file as calls;

/// How long a start waits for a server that is ending, or that is just starting, too.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// Locks the directory for as long as `dir` is open, and removes the hidden files that a killed
/// server left in it.
///
/// The lock is one of the directory itself, which the kernel keeps for every file system, and it
/// needs no file. A server that replaces files is alone in its directory; those that keep existing
/// files share it.
///
/// # Errors
///
/// [`WouldBlock`](io::ErrorKind::WouldBlock) if another server uses the directory and not both of
/// them keep existing files.
pub(super) fn lock(dir: &OwnedFd, path: &Path, existing: Existing) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match try_lock(dir, path, existing) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(INTERVAL);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                log::warn!("cannot lock {path:?}: {error}: make sure that no other server uses it");
                return Ok(());
            }
            locked => return locked,
        }
    }
}

fn try_lock(dir: &OwnedFd, path: &Path, existing: Existing) -> io::Result<()> {
    match calls::lock_alone(dir) {
        Ok(()) => {
            if let Err(error) = remove_leftovers(dir) {
                log::warn!("cannot look for leftovers in {path:?}: {error}");
            }
            if existing == Existing::Replace { Ok(()) } else { calls::lock_shared(dir) }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && existing == Existing::Keep => {
            calls::lock_shared(dir)
        }
        Err(error) => Err(error),
    }
}

/// Removes hidden files. Only the server that has the directory for itself can tell that they are
/// not uploads of another server.
fn remove_leftovers(dir: &OwnedFd) -> io::Result<()> {
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
    /// see that the second is there.
    #[test]
    fn a_server_that_starts_while_another_cleans_up_gets_its_lock() {
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
