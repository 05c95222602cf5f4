//! Listening sockets: binding and accepting.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::socket::TcpSocket;
use crate::sys;
pub(super) use crate::sys::listen::{bind, prepare};

/// The result of one attempt to accept.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection was accepted.
    Connection(TcpSocket, Option<SocketAddr>),
    /// No connection waits.
    Nothing,
    /// The connection failed before it was accepted; the next attempt may succeed.
    Failed,
    /// The system has no descriptors or memory left, or the listening socket is broken.
    Exhausted(io::Error),
}

/// Accepts one connection from a socket that was [`prepare`]d.
pub(super) fn accept(socket: &TcpListener) -> Accepted {
    match sys::accept::accept(socket) {
        Ok((stream, peer)) => Accepted::Connection(TcpSocket::accepted(stream), peer),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Nothing,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Accepted::Failed,
        Err(error) if sys::accept::is_of_one_connection(&error) => Accepted::Failed,
        Err(error) => Accepted::Exhausted(error),
    }
}
