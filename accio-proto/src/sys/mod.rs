//! The only place that names calls of the operating system.
//!
//! Each fast path is a function here; whoever calls it has the portable way beside the call and
//! asks [`FastPaths`](crate::FastPaths) which to take.
//!
//! What only Linux has is in `linux/`; beside each file there, one of the same name in `portable/`
//! does without. Those are taken on other systems, and with `--cfg accio_portable`
//! (`cargo xtask test-portable`).

#[cfg_attr(all(target_os = "linux", not(accio_portable)), path = "linux/accept.rs")]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), path = "portable/accept.rs")]
#[cfg(feature = "server")]
pub(crate) mod accept;
#[cfg(feature = "client")]
pub(crate) mod client;
#[cfg_attr(all(target_os = "linux", not(accio_portable)), path = "linux/discard.rs")]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), path = "portable/discard.rs")]
pub(crate) mod discard;
pub(crate) mod file;
#[cfg_attr(all(target_os = "linux", not(accio_portable)), path = "linux/pipe.rs")]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), path = "portable/pipe.rs")]
pub(crate) mod pipe;
#[cfg(all(feature = "server", target_os = "linux", not(accio_portable)))]
#[path = "linux/poll.rs"]
pub(crate) mod poll;
#[cfg_attr(all(target_os = "linux", not(accio_portable)), path = "linux/send.rs")]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), path = "portable/send.rs")]
#[cfg(feature = "client")]
mod send;
#[cfg_attr(all(target_os = "linux", not(accio_portable)), path = "linux/signal.rs")]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), path = "portable/signal.rs")]
#[cfg(feature = "server")]
pub(crate) mod signal;
pub(crate) mod socket;
#[cfg_attr(all(target_os = "linux", not(accio_portable)), path = "linux/unacked.rs")]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), path = "portable/unacked.rs")]
#[cfg(feature = "client")]
pub(crate) mod unacked;
#[cfg_attr(all(target_os = "linux", not(accio_portable)), path = "linux/unnamed_file.rs")]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), path = "portable/unnamed_file.rs")]
mod unnamed_file;
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

#[cfg(test)]
#[cfg(feature = "server")]
mod tests {
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags};

    use super::signal::Signal;
    use super::wait::wait;

    #[test]
    fn a_signal_is_readable_from_the_first_raise_to_the_clear() {
        let signal = Signal::new().unwrap();
        let is_raised = || {
            let mut fds = [PollFd::new(&signal, PollFlags::IN)];
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
