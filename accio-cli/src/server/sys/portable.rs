//! System calls that every system has.

use std::io;
use std::os::fd::AsFd;
#[cfg(feature = "metrics")]
use std::os::fd::BorrowedFd;

/// Writes a file to the disk.
pub(in crate::server) fn sync_data(file: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::fsync(file)
}

/// Fails: the capacity of a pipe cannot be set.
pub(in crate::server) fn set_pipe_capacity(_: impl AsFd, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A descriptor that becomes readable when another thread raises it: a pipe.
#[cfg(feature = "metrics")]
#[derive(Debug)]
pub(in crate::server) struct Wake {
    reader: io::PipeReader,
    writer: io::PipeWriter,
}

#[cfg(feature = "metrics")]
impl Wake {
    pub(in crate::server) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        Ok(Wake { reader, writer })
    }

    pub(in crate::server) fn raise(&self) {
        // This fails only if the pipe is full, which means that it is raised already.
        let _ = rustix::io::write(&self.writer, &[1]);
    }
}

#[cfg(feature = "metrics")]
impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
