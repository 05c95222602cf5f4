//! A TLS connection of a session.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;

use super::HandshakeFailure;
use super::stream::{Output, TlsStream};
use crate::program_log as log;
use crate::socket::Socket;

/// The server's side of a TLS connection over another socket.
///
/// Complete its [`handshake`](TlsSocket::handshake) first. Afterwards it is a [`Socket`] whose end
/// of file is the peer's close_notify. If the connection ends in another way, the error has the
/// kind [`ErrorKind::UnexpectedEof`]; for bytes that are not valid TLS it has the kind
/// [`ErrorKind::InvalidData`]. Closing the socket sends close_notify and FIN; dropping it resets
/// the connection.
#[derive(Debug)]
pub struct TlsSocket<T> {
    socket: T,
    stream: TlsStream<UnbufferedServerConnection>,
}

impl<T: Socket> TlsSocket<T> {
    /// Takes over a connection on which nothing has been sent or received.
    ///
    /// # Errors
    ///
    /// Returns an error if rustls rejects the configuration or has no random numbers.
    pub fn new(socket: T, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let stream = TlsStream::new(UnbufferedServerConnection::new(config)?);
        Ok(TlsSocket { socket, stream })
    }

    /// Works like [`new`](TlsSocket::new), but returns the connection together with an error.
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

    /// Continues the handshake as far as the client's bytes allow. Returns true once it is
    /// complete.
    ///
    /// # Errors
    ///
    /// Returns the reason if the handshake has failed. An alert has been sent to the client, if TLS
    /// defines one for the failure.
    pub fn handshake(&mut self) -> Result<bool, HandshakeFailure> {
        self.stream.handshake(&mut self.socket)
    }

    /// Returns whether the client has sent any bytes.
    pub fn has_heard(&self) -> bool {
        self.stream.has_heard()
    }

    /// Returns the certificates that the client presented and the configuration verified.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.stream.state().peer_certificates()
    }

    /// Returns the underlying connection.
    pub fn get_ref(&self) -> &T {
        &self.socket
    }

    /// Returns the underlying connection, for sending bytes without rustls.
    #[cfg(feature = "server")]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// Returns the underlying connection, to end it.
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

    fn has_received_part(&self) -> bool {
        self.stream.has_received_part()
    }

    fn close(mut self) {
        match self.stream.close(&mut self.socket) {
            Ok(()) if !self.stream.wants_write() => self.socket.close(),
            // The peer sees a reset although the file is stored, which is the safe side.
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
