//! The only place that names calls of the operating system.
//!
//! Each fast path is a function here; whoever calls it has the portable way beside the call and
//! asks [`FastPaths`](crate::FastPaths) which to take.

#[cfg(feature = "server")]
pub(crate) mod accept;
#[cfg(feature = "client")]
pub(crate) mod client;
pub(crate) mod file;
#[cfg(feature = "client")]
pub(crate) mod outq;
pub(crate) mod pipe;
#[cfg(feature = "server")]
pub(crate) mod poll;
#[cfg(feature = "server")]
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod wait;

use std::io;

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Whether the error says that the kernel or the file system does not offer the call at all.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
    )
}
