//! A listening socket: binding it, and accepting a connection.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::socket::TcpSocket;
use crate::sys;
pub(super) use crate::sys::listen::{bind, prepare};

/// What one attempt to accept brought.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection.
    Connection(TcpSocket, Option<SocketAddr>),
    /// Nobody waits.
    Nobody,
    /// That connection failed before it could be accepted; the next may not.
    Failed,
    /// The system has no descriptor or no memory left, or the socket itself is broken.
    Exhausted(io::Error),
}

/// Accepts one connection of a socket that is [`prepare`]d.
pub(super) fn accept(socket: &TcpListener) -> Accepted {
    match sys::accept::accept(socket) {
        Ok((stream, peer)) => Accepted::Connection(TcpSocket::accepted(stream), peer),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Accepted::Failed,
        Err(error) if sys::accept::is_of_one_connection(&error) => Accepted::Failed,
        Err(error) => Accepted::Exhausted(error),
    }
}
