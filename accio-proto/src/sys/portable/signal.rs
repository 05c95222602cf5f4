//! Signals that wake threads.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};

/// A descriptor that becomes readable when raised, and stays readable until cleared: a pipe.
#[derive(Debug)]
pub(crate) struct Signal {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Signal {
    pub(crate) fn new() -> io::Result<Signal> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        Ok(Signal { reader, writer })
    }

    pub(crate) fn raise(&self) {
        // This fails only if the pipe is full, which means that the signal is raised already.
        let _ = rustix::io::write(&self.writer, &[1]);
    }

    pub(crate) fn clear(&self) {
        // Reads until the pipe is empty, which is an error, or has returned less than requested.
        while rustix::io::read(&self.reader, &mut [0; 512]).is_ok_and(|count| count == 512) {}
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
