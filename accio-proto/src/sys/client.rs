//! System calls that only the client uses.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Type};

/// A socket that is not connected yet.
pub(crate) use socket2::Socket;

/// Opens a non-blocking TCP socket for `address`. Closing it resets the connection.
pub(crate) fn open(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Binds a socket that is not connected yet to an address of this machine.
pub(crate) fn bind(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.bind(&address.into())
}

/// Returns whether this machine lacks descriptors, memory or ports, which may be temporary.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::NOBUFS
                | Errno::AGAIN
                // No port is free for a new connection, or for a socket bound to an address.
                | Errno::ADDRNOTAVAIL
                | Errno::ADDRINUSE
        )
    )
}

/// Returns whether connecting failed on this machine, before a packet was sent.
pub(crate) fn is_local_failure(error: &io::Error) -> bool {
    // A link-local address without its interface, or a rule of a firewall or sandbox.
    let refused = matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::PERM | Errno::ACCESS | Errno::AFNOSUPPORT)
    );
    refused || is_shortage(error)
}

/// Returns whether the kernel has no sockets of the address's family.
pub(crate) fn is_family_unsupported(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

/// Returns the error of a refused connection.
pub(crate) fn refused() -> io::Error {
    Errno::CONNREFUSED.into()
}

/// Returns the error of an unanswered connection attempt.
pub(crate) fn timed_out() -> io::Error {
    Errno::TIMEDOUT.into()
}

/// Result of [`start_connect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Started {
    /// The socket is connected.
    Connected,
    /// [`wait_any`] returns when the attempt is complete, and the error of the socket is its
    /// result.
    Pending,
}

pub(crate) fn start_connect(socket: &Socket, address: SocketAddr) -> io::Result<Started> {
    match socket.connect(&address.into()) {
        Ok(()) => Ok(Started::Connected),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::INPROGRESS | Errno::INTR) => Ok(Started::Pending),
            _ => Err(error),
        },
    }
}

/// Waits until an attempt to connect is complete, for at most `timeout`. Returns for each socket
/// whether it is.
pub(crate) fn wait_any<'a>(
    sockets: impl Iterator<Item = &'a Socket>,
    timeout: Duration,
) -> io::Result<Vec<bool>> {
    let mut fds: Vec<_> = sockets.map(|socket| PollFd::new(socket, PollFlags::OUT)).collect();
    poll_for(&mut fds, timeout)?;
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Prepares a connected socket: it never blocks, and the kernel closes the connection when bytes
/// stay unacknowledged for `patience`.
pub(crate) fn prepare(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // Both are optional: the client enforces the same limit itself, and a delayed last segment only
    // costs time.
    let _ = super::send::give_up_after(stream, patience);
    let _ = stream.set_nodelay(true);
    Ok(())
}

/// Result of [`wait`]: whether bytes, FIN or an error can be received, and whether there is room to
/// send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) receive: bool,
    pub(crate) send: bool,
}

/// Waits until something can be received, or sent if `send` is set, for at most `timeout`.
pub(crate) fn wait(stream: &TcpStream, send: bool, timeout: Duration) -> io::Result<Ready> {
    let mut wanted = PollFlags::IN;
    wanted.set(PollFlags::OUT, send);
    let mut fds = [PollFd::new(stream, wanted)];
    poll_for(&mut fds, timeout)?;
    let found = fds[0].revents();
    Ok(Ready { receive: found.intersects(SPEAKS), send: found.contains(PollFlags::OUT) })
}

/// Waits until something can be received, or read from `source`, for at most `timeout`. Returns
/// which.
pub(crate) fn wait_source(
    stream: &TcpStream,
    source: BorrowedFd<'_>,
    timeout: Duration,
) -> io::Result<(bool, bool)> {
    let mut fds = [PollFd::new(stream, PollFlags::IN), PollFd::new(&source, PollFlags::IN)];
    poll_for(&mut fds, timeout)?;
    // Reading the source reports its state.
    Ok((fds[0].revents().intersects(SPEAKS), !fds[1].revents().is_empty()))
}

/// Bytes, FIN or an error to receive.
const SPEAKS: PollFlags = PollFlags::IN.union(PollFlags::ERR).union(PollFlags::HUP);

/// Polls. After an interruption by a signal, no descriptor counts as ready.
fn poll_for(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(fds, Some(&timeout)) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => {
            for fd in fds {
                fd.clear_revents();
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns whether the connection is closed in both directions. After a reset that another call has
/// consumed (a partial sendfile does not report it), receiving returns 0 as for a FIN; this tells
/// them apart while this side is open.
pub(crate) fn is_gone(stream: &TcpStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}
