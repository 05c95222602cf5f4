//! Wake-up calls between threads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// A descriptor that becomes readable when it is raised, and stays so until it is cleared.
#[derive(Debug)]
pub(crate) struct Signal(OwnedFd);

impl Signal {
    pub(crate) fn new() -> io::Result<Signal> {
        Ok(Signal(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn raise(&self) {
        // The counter can only be full when it is raised already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        // Nothing to read: it is clear.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags};

    use super::*;
    use crate::sys::wait::wait;

    #[test]
    fn it_is_readable_from_the_first_raise_to_the_clear() {
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
