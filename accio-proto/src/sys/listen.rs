//! Listening sockets.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::socket::{keep_urgent_bytes, reset_on_close, send_at_once};
use crate::tuning::server::BACKLOG;

/// Binds and listens on `address`; on `[::]`, also for IPv4 if `dual` is set.
pub(crate) fn bind(address: SocketAddr, dual: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Regardless of the default of the system.
        socket.set_only_v6(!dual)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Prepares a listening socket for accepting.
pub(crate) fn prepare(socket: &TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Accepted connections inherit this option: anything except a graceful close, even the end of
    // this process, resets them, so that no peer mistakes it for a stored file.
    reset_on_close(socket, true)?;
    // Inherited as well: a byte sent as urgent is a byte of the file like any other.
    keep_urgent_bytes(socket)?;
    // Inherited as well: what the server sends is short, and a client may wait for each part of it.
    send_at_once(socket);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn accepted_connections_send_at_once() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        prepare(&listener).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
        drop(client);
    }
}
