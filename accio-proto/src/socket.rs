//! What a session needs of its connection, and a TCP connection as that.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys;

/// What a session needs of its connection. No call waits.
///
/// An implementation reports an error of the connection once, as the kernel does; the session acts
/// on it at once and never asks again.
pub trait Socket {
    /// Receives what is there; 0 is the peer's FIN.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; others end the session.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Drops up to `scratch.len()` received bytes and says how many; what is in `scratch`
    /// afterwards means nothing.
    ///
    /// # Errors
    ///
    /// As [`recv`](Socket::recv).
    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        self.recv(scratch)
    }

    /// Sends what fits of `bytes`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing fits; others end the session, but for
    /// [`io::ErrorKind::BrokenPipe`], which says that the peer was done before it reset.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Whether bytes, the end or an error wait to be received. Takes none of them. An
    /// implementation that cannot tell says yes.
    fn has_input(&self) -> bool {
        true
    }

    /// The descriptor to splice from, if there is one.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether bytes that were sent wait in a buffer of its own, for room in the system's.
    fn wants_write(&self) -> bool {
        false
    }

    /// Whether there is something to receive even while the descriptor is not readable.
    fn has_buffered(&self) -> bool {
        false
    }

    /// Closes the connection with FIN: all is well. Dropping it instead must reset it.
    fn close(self);
}

/// What a session's socket is to be watched for. Data after the end, errors and resets are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes or the end of the stream.
    Read,
    /// Room in the send buffer too.
    ReadWrite,
}

/// A non-blocking TCP connection with `SO_LINGER` on and zero, so that any end but
/// [`close`](Socket::close), the end of the process included, resets it, and with `SO_OOBINLINE`,
/// so that an urgent byte is a byte like any other.
#[derive(Debug)]
pub struct TcpSocket(TcpStream);

impl TcpSocket {
    /// Takes the connection over and sets its options.
    ///
    /// # Errors
    ///
    /// The options cannot be set; the connection is closed.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        sys::socket::prepare(&stream)?;
        Ok(TcpSocket(stream))
    }

    /// For a connection that has these options from its accept.
    #[cfg(feature = "server")]
    pub(crate) fn accepted(stream: TcpStream) -> Self {
        TcpSocket(stream)
    }

    /// What is there, without taking it; 0 is the peer's FIN.
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
        // Should it fail, the peer sees a reset although the file is kept: the safe side to err on.
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
