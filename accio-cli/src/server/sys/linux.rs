//! The system calls of Linux.

use std::io;
use std::os::fd::AsFd;
#[cfg(feature = "metrics")]
use std::os::fd::{BorrowedFd, OwnedFd};

/// Writes the content of a file to the disk, but not all of its metadata.
pub(in crate::server) fn sync_data(file: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fdatasync(file)
}

pub(in crate::server) fn set_pipe_capacity(pipe: impl AsFd, capacity: usize) -> io::Result<()> {
    rustix::pipe::fcntl_setpipe_size(pipe, capacity)?;
    Ok(())
}

/// A descriptor that becomes readable when another thread raises it: a counter.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub(in crate::server) struct Wake(OwnedFd);

#[cfg(feature = "metrics")]
impl Wake {
    pub(in crate::server) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Wake(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(in crate::server) fn raise(&self) {
        // This fails only if it is raised already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

#[cfg(feature = "metrics")]
impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
