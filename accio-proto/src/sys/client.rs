//! System calls of the client alone.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Opens a TCP socket for `address`, armed to reset from the start.
pub(crate) fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

/// Prepares a connected socket: it never blocks, and the kernel gives up what stays
/// unacknowledged for `patience`.
pub(crate) fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // Nice to have, both: the client's own clock watches the same limit, and a delayed last
    // segment costs only time.
    let milliseconds = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(stream, milliseconds.clamp(1, i32::MAX as u32));
    let _ = stream.set_nodelay(true);
    Ok(())
}

/// Whether closing the socket, be it by being killed, resets the connection (else: FIN).
pub(crate) fn reset_on_close(stream: &TcpStream, reset: bool) -> io::Result<()> {
    SockRef::from(stream).set_linger(reset.then_some(Duration::ZERO))
}

/// What [`wait`] found: bytes, FIN or an error to receive; room to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) receive: bool,
    pub(crate) send: bool,
}

/// Waits until something can be received, or sent where `send` asks for it, for at most `timeout`.
pub(crate) fn wait(stream: &TcpStream, send: bool, timeout: Duration) -> io::Result<Ready> {
    let mut wanted = PollFlags::IN;
    wanted.set(PollFlags::OUT, send);
    let mut fds = [PollFd::new(stream, wanted)];
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let found = fds[0].revents();
    Ok(Ready {
        receive: found.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP),
        send: found.contains(PollFlags::OUT),
    })
}

/// Whether the connection is gone, both ways. After a reset that another call was told of (a partial
/// sendfile keeps it to itself), receiving says 0, as if it were a FIN; this tells them apart for
/// as long as our own side is open.
pub(crate) fn is_gone(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// What became of a [`send_file`].
#[derive(Debug)]
pub(crate) enum SendFile {
    /// This many bytes are queued and the file's position is as much further on; 0 at its end.
    Queued(usize),
    /// The socket has no room.
    Full,
    /// The kernel or the file system has no sendfile for this.
    Refused(io::Error),
    /// The file or the machine has a fault; reading the file will tell.
    Fault,
    /// The connection is broken.
    Broken(io::Error),
}

/// Sends up to `count` bytes from the file's position, within the kernel.
pub(crate) fn send_file(stream: &TcpStream, file: &File, count: usize) -> SendFile {
    match sendfile(stream, file, None, count) {
        Ok(sent) => SendFile::Queued(sent),
        Err(Errno::AGAIN | Errno::INTR) => SendFile::Full,
        Err(error @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => {
            SendFile::Refused(error.into())
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
        ) => SendFile::Broken(error.into()),
        Err(_) => SendFile::Fault,
    }
}
