//! Detects a standard input that was closed when the program started.
//!
//! Before `main`, Rust's runtime opens `/dev/null` in place of a closed descriptor. Reading from it
//! returns an empty input, so that the client would send an empty file. Output that is written to it
//! is dropped, which is what a caller that closes standard output asks for; besides, it is the same
//! as the `/dev/null`, opened in both directions, that many programs start others with.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat, stat};
use rustix::io::Errno;

/// Returns an error if standard input may have been closed when the program started: if it is
/// `/dev/null`, opened for reading and writing, and not shared with standard output or error.
///
/// # Errors
///
/// Returns EBADF, like reading from a closed descriptor.
pub fn check_stdin() -> io::Result<()> {
    let stdin = io::stdin();
    match is_replacement(stdin.as_fd(), [io::stdout().as_fd(), io::stderr().as_fd()]) {
        Ok(true) | Err(Errno::BADF) => Err(Errno::BADF.into()),
        // If the system does not say, use the descriptor.
        Ok(false) | Err(_) => Ok(()),
    }
}

/// Returns whether the runtime may have opened `fd`. The runtime opens `/dev/null` for reading and
/// writing, once per closed descriptor. Shells and service managers open it in one direction only,
/// and daemons that open it in both duplicate one descriptor several times.
fn is_replacement(fd: BorrowedFd<'_>, others: [BorrowedFd<'_>; 2]) -> Result<bool, Errno> {
    let found = fstat(fd)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice
        || found.st_rdev != stat("/dev/null")?.st_rdev
        || !fcntl_getfl(fd)?.contains(OFlags::RDWR)
    {
        return Ok(false);
    }
    Ok(!others.into_iter().any(|other| is_same_description(fd, other)))
}

/// Returns whether both are duplicates of one descriptor and therefore share their flags.
/// Temporarily changes a flag that has no effect on `/dev/null`.
fn is_same_description(fd: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let Ok(flags) = fcntl_getfl(fd) else { return false };
    let Ok(before) = fcntl_getfl(other) else { return false };
    if before != flags || fcntl_setfl(fd, flags ^ OFlags::APPEND).is_err() {
        return false;
    }
    let after = fcntl_getfl(other);
    // This worked before, so it does not fail.
    let _ = fcntl_setfl(fd, flags);
    after.is_ok_and(|after| after != before)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn null(read: bool, write: bool) -> File {
        File::options().read(read).write(write).open("/dev/null").unwrap()
    }

    #[test]
    fn only_a_descriptor_opened_by_the_runtime_counts_as_closed() {
        let (replacement, other) = (null(true, true), null(true, true));
        let others = [other.as_fd(), other.as_fd()];
        assert_eq!(is_replacement(replacement.as_fd(), others), Ok(true));
        for open in [null(true, false), null(false, true), tempfile()] {
            assert_eq!(is_replacement(open.as_fd(), others), Ok(false), "{open:?}");
        }
        let duplicate = replacement.try_clone().unwrap();
        let shared = is_replacement(replacement.as_fd(), [other.as_fd(), duplicate.as_fd()]);
        assert_eq!(shared, Ok(false), "like in a daemon");
    }

    fn tempfile() -> File {
        File::from(std::os::fd::OwnedFd::from(io::pipe().unwrap().0))
    }
}
