//! How bytes travel: as they are, or under TLS.

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
    /// Whether the kernel may move bytes into the socket by itself.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain)
    }

    /// Receives what is there; 0 is the server's end of the connection: its FIN or, under TLS, its
    /// close_notify.
    pub(super) fn receive(&mut self, stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain => sys::socket::recv(stream, buffer),
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.receive(stream, buffer),
        }
    }

    /// Whether [`receive`](Transport::receive) has something to say even while the socket is not
    /// readable.
    pub(super) fn has_buffered(&self) -> bool {
        match self {
            Transport::Plain => false,
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.has_buffered(),
        }
    }

    /// Hands bytes to the kernel and says how many it took. After [`io::ErrorKind::WouldBlock`] the
    /// same bytes must be offered again.
    pub(super) fn send(&mut self, stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain => sys::socket::send(stream, bytes),
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.send(stream, bytes),
        }
    }

    /// Marks the end of the file; true once the kernel has taken the mark. FIN comes after it.
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

    /// How many bytes the kernel has taken since the last call, of which `content` were content
    /// that was sent as it is.
    pub(super) fn take_written(&mut self, content: usize) -> usize {
        match self {
            Transport::Plain => content,
            #[cfg(feature = "tls")]
            Transport::Tls(tls) => tls.take_written(),
        }
    }
}
