//! The connection of a session, and its implementation by TCP.

use std::io;
#[cfg(feature = "server")]
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use crate::program_log as log;
use crate::sys;

/// The connection of a session. No call waits.
///
/// An implementation reports an error of the connection once, like the kernel. The session then
/// ends and does not call it again.
pub trait Socket {
    /// Receives available bytes; 0 is the peer's FIN.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if no bytes are available. Any other error ends the session.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Drops up to `scratch.len()` received bytes and returns their number. The contents of
    /// `scratch` are meaningless afterwards.
    ///
    /// # Errors
    ///
    /// As [`recv`](Socket::recv).
    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        self.recv(scratch)
    }

    /// Sends as many of `bytes` as fit into the send buffer and returns their number.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if the buffer is full. Any other error ends the session,
    /// except [`io::ErrorKind::BrokenPipe`], which means that the peer reset the connection after
    /// its FIN.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Returns whether bytes, the end or an error can be received, without receiving them. An
    /// implementation that does not know returns true.
    fn has_input(&self) -> bool {
        true
    }

    /// Returns the descriptor to splice from, if there is one.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Returns whether sent bytes wait in a buffer of the implementation for room in the send
    /// buffer.
    fn wants_write(&self) -> bool {
        false
    }

    /// Returns whether bytes can be received even though the descriptor is not readable.
    fn has_buffered(&self) -> bool {
        false
    }

    /// Returns whether the last call of [`recv`](Socket::recv) or [`discard`](Socket::discard),
    /// which returned [`io::ErrorKind::WouldBlock`], has nevertheless received bytes of the peer,
    /// such as a part of a TLS record. They count for the idle timeout.
    fn has_received_part(&self) -> bool {
        false
    }

    /// Closes the connection with FIN, as for a stored file. Dropping the socket instead must reset
    /// the connection.
    fn close(self);
}

/// A non-blocking TCP connection. Its linger timeout is zero, so that anything except
/// [`close`](Socket::close), even the end of the process, resets it. It has `SO_OOBINLINE`, so that
/// urgent bytes are treated like any other.
#[derive(Debug)]
pub struct TcpSocket(TcpStream);

impl TcpSocket {
    /// Takes over the connection and sets its options.
    ///
    /// # Errors
    ///
    /// An option could not be set; the connection is closed.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        sys::socket::prepare(&stream)?;
        Ok(TcpSocket(stream))
    }

    /// Takes over a connection that has these options from its accept.
    #[cfg(feature = "server")]
    pub(crate) fn accepted(stream: TcpStream) -> Self {
        TcpSocket(stream)
    }

    /// Returns the local address of the connection, if the system knows it.
    #[cfg(feature = "server")]
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Copies available bytes without removing them; 0 is the peer's FIN.
    #[cfg(feature = "server")]
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.peek(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

impl Socket for TcpSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::socket::recv(&self.0, buffer)
    }

    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        sys::discard::discard(&self.0, scratch)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::socket::send(&self.0, bytes)
    }

    fn has_input(&self) -> bool {
        sys::wait::has_input(&self.0)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(AsFd::as_fd(&self.0))
    }

    fn close(self) {
        // If this fails, the peer sees a reset although the file is stored, which is the safe side.
        if let Err(error) = sys::socket::reset_on_close(&self.0, false) {
            log::debug!("cannot close a connection gracefully: {error}");
        }
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
