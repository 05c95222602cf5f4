//! A listening socket: binding it, and accepting a connection.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;
use crate::socket::TcpSocket;
use crate::sys;

/// What one attempt to accept brought.
#[derive(Debug)]
#[cfg_attr(
    not(all(target_os = "linux", not(accio_portable))),
    expect(dead_code, reason = "some only come of the reactor's listeners")
)]
pub(super) enum Accepted {
    /// A connection; one of the reactor's listeners holds a place there.
    Connection(TcpSocket, Option<SocketAddr>),
    /// Nobody waits.
    Nobody,
    /// That connection failed before it could be accepted; the next may not.
    Failed,
    /// All places are taken.
    Full,
    /// The system has no descriptor or no memory left, or the socket itself is broken.
    Exhausted(io::Error),
    /// The socket is closed.
    Closed,
}

/// Binds `address` and listens there; on `[::]` for IPv4 too if `dual` says so.
pub(super) fn bind(address: SocketAddr, dual: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server need not wait for old connections to fade.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever the system's default.
        socket.set_only_v6(!dual)?;
    }
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    Ok(socket.into())
}

/// Makes a listening socket ready to [`accept`] from.
pub(super) fn prepare(socket: &TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it: whatever ends them but a graceful close, even the end of
    // this process, resets them, so no peer takes that for a kept file.
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
    // Inherited too: a byte sent as urgent is a byte of the file like any other.
    rustix::net::sockopt::set_socket_oobinline(socket, true).map_err(io::Error::from)
}

/// Accepts one connection of a socket that is [`prepare`]d.
pub(super) fn accept(socket: &TcpListener) -> Accepted {
    match sys::accept::accept(socket) {
        Ok((socket, peer)) => Accepted::Connection(socket, peer),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Accepted::Failed,
        Err(error) if sys::accept::is_of_one_connection(&error) => Accepted::Failed,
        Err(error) => Accepted::Exhausted(error),
    }
}
