//! Sending and receiving, with or without TLS.

use std::io;
use std::net::TcpStream;

#[cfg(feature = "tls")]
use super::secured::Secured;
use crate::sys;

/// The layer between a connection and its socket.
#[derive(Debug)]
pub(super) enum Transport {
    Plain,
    #[cfg(feature = "tls")]
    Tls(Box<Secured>),
}

impl Transport {
    /// Returns whether the kernel may send bytes from a file to the socket by itself.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }

    /// Receives available bytes; 0 is the end of the connection: the FIN of the server or, under
    /// TLS, its close_notify.
    pub(super) fn receive(&mut self, stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain => sys::socket::recv(stream, buffer),
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.receive(stream, buffer),
        }
    }

    /// Returns whether [`receive`](Transport::receive) returns bytes even though the socket is not
    /// readable.
    pub(super) fn has_buffered(&self) -> bool {
        match self {
            Transport::Plain => false,
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.has_buffered(),
        }
    }

    /// Passes bytes to the kernel and returns how many it accepted. After
    /// [`io::ErrorKind::WouldBlock`] the same bytes must be passed again.
    pub(super) fn send(&mut self, stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain => sys::socket::send(stream, bytes),
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.send(stream, bytes),
        }
    }

    /// Marks the end of the file; true once the kernel has accepted the mark. The FIN follows it.
    pub(super) fn close(&mut self, stream: &TcpStream) -> io::Result<bool> {
        match self {
            Transport::Plain => {
                let _ = stream;
                Ok(true)
            }
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.close(stream),
        }
    }

    /// Returns how many bytes the kernel has accepted since the last call. Without TLS these are
    /// the `content` bytes.
    pub(super) fn take_written(&mut self, content: usize) -> usize {
        match self {
            Transport::Plain => content,
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.take_written(),
        }
    }
}
