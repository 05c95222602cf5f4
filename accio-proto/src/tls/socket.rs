//! A connection under TLS, for a session to drive.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;

use super::HandshakeFailure;
use super::stream::{Output, TlsStream};
use crate::socket::Socket;

/// The server's end of a TLS connection over another socket.
///
/// Complete its [`handshake`](TlsSocket::handshake) first. From then on it is a [`Socket`] whose
/// end of file is the peer's close_notify: a connection that ends in another way is an error of the
/// kind [`ErrorKind::UnexpectedEof`], and bytes that are not valid TLS are one of the kind
/// [`ErrorKind::InvalidData`]. Closing it sends close_notify and FIN; dropping it resets the
/// connection.
#[derive(Debug)]
pub struct TlsSocket<T> {
    socket: T,
    stream: TlsStream<UnbufferedServerConnection>,
}

impl<T: Socket> TlsSocket<T> {
    /// Takes a connection over, on which nothing was sent or received yet.
    ///
    /// # Errors
    ///
    /// rustls refuses the configuration, or has no random numbers.
    pub fn new(socket: T, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let stream = TlsStream::new(UnbufferedServerConnection::new(config)?);
        Ok(TlsSocket { socket, stream })
    }

    /// The same, and gives the connection back if it cannot be taken over.
    #[cfg(feature = "server")]
    pub(crate) fn try_new(
        socket: T,
        config: Arc<ServerConfig>,
    ) -> Result<Self, (T, rustls::Error)> {
        match UnbufferedServerConnection::new(config) {
            Ok(connection) => Ok(TlsSocket { socket, stream: TlsStream::new(connection) }),
            Err(error) => Err((socket, error)),
        }
    }

    /// Goes on with the handshake as far as the client's bytes allow; true once it is complete.
    ///
    /// # Errors
    ///
    /// The handshake has failed. The client has been sent an alert, where there is one.
    pub fn handshake(&mut self) -> Result<bool, HandshakeFailure> {
        self.stream.handshake(&mut self.socket)
    }

    /// Whether the client has sent anything yet.
    pub fn has_heard(&self) -> bool {
        self.stream.has_heard()
    }

    /// The certificates that the client presented and the configuration verified.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.stream.state().peer_certificates()
    }

    /// The connection below.
    pub fn get_ref(&self) -> &T {
        &self.socket
    }

    /// The connection below, on which bytes can be sent that rustls knows nothing of.
    #[cfg(feature = "server")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// The connection below, to end it.
    #[cfg(feature = "server")]
    pub(crate) fn into_inner(self) -> T {
        self.socket
    }
}

impl<T: Socket> Socket for TlsSocket<T> {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.receive(&mut self.socket, Output::Copy(buffer, 0))
    }

    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        self.stream.receive(&mut self.socket, Output::Count(scratch.len(), 0))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.send(&mut self.socket, bytes).map(|()| bytes.len())
    }

    fn wants_write(&self) -> bool {
        self.stream.wants_write()
    }

    fn has_buffered(&self) -> bool {
        self.stream.has_buffered()
    }

    fn has_input(&self) -> bool {
        self.stream.has_buffered() || self.socket.has_input()
    }

    fn close(mut self) {
        match self.stream.close(&mut self.socket) {
            Ok(()) if !self.stream.wants_write() => self.socket.close(),
            // The peer sees a reset although the file is kept: the safe side to err on.
            Ok(()) => log::debug!("no room to send close_notify"),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => log::debug!("cannot send close_notify: {error}"),
        }
    }
}

impl<T: AsFd> AsFd for TlsSocket<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
