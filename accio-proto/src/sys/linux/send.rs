//! Sending within the kernel, and other calls of Linux for a client.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::pipe::{SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, splice};

use crate::sys::socket::Moved;
use crate::tuning::PIPE_CAPACITY;

/// Makes the kernel close the connection when bytes stay unacknowledged for `patience`.
pub(crate) fn give_up_after(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, milliseconds.clamp(1, i32::MAX as u32))?)
}

/// Sends up to `count` bytes from the file's position, within the kernel.
pub(crate) fn send_file(stream: &TcpStream, file: &File, count: usize) -> Moved {
    moved(sendfile(stream, file, None, count))
}

/// Increases the capacity of a pipe, so that its two ends wait for each other less often.
pub(crate) fn widen(pipe: &File) {
    if fcntl_getpipe_size(pipe).is_ok_and(|size| size < PIPE_CAPACITY) {
        // The system may refuse the size to a process with many pipes; the default works too.
        let _ = fcntl_setpipe_size(pipe, PIPE_CAPACITY);
    }
}

/// Sends up to `count` bytes of the pipe, within the kernel.
pub(crate) fn send_pipe(stream: &TcpStream, pipe: &File, count: usize) -> Moved {
    // The flag prevents blocking on the pipe; the socket is non-blocking itself.
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    moved(splice(pipe.as_fd(), None, stream.as_fd(), None, count, flags))
}

fn moved(result: rustix::io::Result<usize>) -> Moved {
    match result {
        Ok(count) => Moved::Queued(count),
        Err(Errno::AGAIN | Errno::INTR) => Moved::Full,
        Err(error @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => {
            Moved::Refused(error.into())
        }
        Err(
            error @ (Errno::PIPE
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::NOTCONN
            | Errno::TIMEDOUT
            | Errno::HOSTUNREACH
            | Errno::HOSTDOWN
            | Errno::NETUNREACH
            | Errno::NETDOWN
            | Errno::NETRESET),
        ) => Moved::Broken(error.into()),
        Err(_) => Moved::Fault,
    }
}
