//! System calls. No other module names a crate of system calls.
//!
//! Each fast path is a function here. Its caller has the portable alternative next to the call and
//! asks [`FastPaths`](crate::FastPaths) which one to use.
//!
//! The calls of Linux are in `linux/`; a module of the same name in `portable/` does without.
//! `build.rs` selects one: `portable/` is used on other systems, and with `--cfg accio_portable`
//! (`cargo xtask test-portable`).

#[cfg(feature = "client")]
pub(crate) mod client;
pub(crate) mod file;
pub(crate) mod file_system;
#[cfg_attr(linux_sys, path = "linux/mod.rs")]
#[cfg_attr(not(linux_sys), path = "portable/mod.rs")]
mod imp;
#[cfg(feature = "server")]
pub(crate) mod listen;
#[cfg(feature = "server")]
pub(crate) mod process;
#[cfg(feature = "client")]
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod wait;

use std::io;

pub(crate) use imp::*;

/// Converts permission bits for a system call.
pub(crate) fn permissions(mode: u32) -> rustix::fs::Mode {
    rustix::fs::Mode::from_raw_mode(mode as rustix::fs::RawMode)
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

/// Returns whether the error says that the kernel or the file system does not support the call.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
    )
}

#[cfg(test)]
#[cfg(feature = "server")]
mod tests {
    use std::time::Instant;

    use super::signal::Signal;
    use super::wait::{readable, wait};

    #[test]
    fn a_signal_is_readable_from_raise_to_clear() {
        let signal = Signal::new().unwrap();
        let is_raised = || {
            let mut fds = [readable(&signal)];
            wait(&mut fds, Some(Instant::now())).unwrap() == 1
        };
        assert!(!is_raised());
        for _ in 0..100_000 {
            signal.raise();
        }
        assert!(is_raised() && is_raised());
        signal.clear();
        assert!(!is_raised());
        signal.clear();
        signal.raise();
        assert!(is_raised());
    }
}
