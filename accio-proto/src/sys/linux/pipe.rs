//! A pipe that carries bytes from a socket to a file within the kernel.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::program_log as log;
use crate::sys::retry;
use crate::tuning::PIPE_CAPACITY;

/// A pipe of [`PIPE_CAPACITY`], or of the size that the system grants.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // The system may refuse the size to a process with many pipes; the default works too.
        if let Err(error) = fcntl_setpipe_size(&write, PIPE_CAPACITY) {
            log::debug!("pipe stays at its default size: {error}");
        }
        Ok(Pipe { read, write })
    }

    /// Moves the bytes of the socket, at most the capacity, into the empty pipe; 0 is the FIN.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        retry(|| splice(socket, None, &self.write, None, PIPE_CAPACITY, flags))
    }

    /// Moves up to `count` bytes from the pipe to the file's position.
    pub(crate) fn drain(&mut self, file: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        match retry(|| splice(&self.read, None, file, None, count, SpliceFlags::MOVE))? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            moved => Ok(moved),
        }
    }

    /// Reads bytes from the pipe that could not be moved to the file.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match retry(|| rustix::io::read(&self.read, &mut *buffer))? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}
