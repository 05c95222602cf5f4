//! The listening socket: binding it, and accepting as many as there is room for.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;
use crate::session::TcpSocket;
use crate::sys;

/// A listening socket that accepts connections up to a limit.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    limit: usize,
    /// Connections in service; each holds a place from its accept to its end.
    live: AtomicUsize,
    /// Nobody watches the socket: the limit is reached, or the system had no room. Whoever makes
    /// room, or the retry deadline, swaps this back and watches it again; only one of them can.
    asleep: AtomicBool,
}

/// What one attempt to accept brought.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection, which holds a place until [`Listener::leave`].
    Connection(TcpSocket, Option<SocketAddr>),
    /// Nobody waits.
    Nobody,
    /// That connection failed before it could be accepted; the next may not.
    Failed,
    /// All places are taken.
    Full,
    /// The system has no descriptor or no memory left, or the socket itself is broken.
    Exhausted(io::Error),
}

/// Binds `address` and listens there.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server need not wait for old connections to fade.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` is every interface, IPv4 included, whatever the system's default.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    Ok(socket.into())
}

impl Listener {
    /// Takes a listening socket over.
    pub(super) fn new(socket: TcpListener, limit: usize) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Accepted connections inherit it: whatever ends them but a graceful close, even the end
        // of this process, resets them, so no peer ever takes that for a kept file.
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
        // Inherited too: a byte sent as urgent is a byte of the file like any other.
        rustix::net::sockopt::set_socket_oobinline(&socket, true)?;
        let live = AtomicUsize::new(0);
        Ok(Listener { socket, limit, live, asleep: AtomicBool::new(false) })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts one connection. Only whoever was handed the socket's event may call it.
    pub(super) fn accept(&self) -> Accepted {
        if self.live.load(Ordering::SeqCst) >= self.limit {
            return Accepted::Full;
        }
        match sys::socket::accept(&self.socket) {
            Ok((fd, peer)) => {
                self.live.fetch_add(1, Ordering::SeqCst);
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                Accepted::Connection(TcpSocket::accepted(TcpStream::from(fd)), peer)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
            Err(error) if is_of_one_connection(&error) => Accepted::Failed,
            Err(error) => Accepted::Exhausted(error),
        }
    }

    /// Lets the socket sleep until [`wake`](Listener::wake).
    pub(super) fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Gives a place back, after the connection's descriptors are closed.
    pub(super) fn leave(&self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether the caller is to watch the socket again: it slept, there is room, and nobody else
    /// was asked to.
    pub(super) fn wake(&self) -> bool {
        self.live.load(Ordering::SeqCst) < self.limit
            && self.asleep.load(Ordering::SeqCst)
            && self.asleep.swap(false, Ordering::SeqCst)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Whether accept failed for the one connection it took from the queue. Linux also hands out
/// network errors that were pending on it.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::TIMEDOUT
        )
    )
}
