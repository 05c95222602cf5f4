//! The socket of a server's connection, with or without TLS.

#[cfg(not(feature = "tls"))]
use std::sync::Arc;

#[cfg(not(feature = "tls"))]
pub(super) use crate::socket::TcpSocket as ServerSocket;

#[cfg(not(feature = "tls"))]
impl ServerSocket {
    /// Returns the client's identity, which only exists with TLS.
    pub(super) fn identity(&self) -> Option<&Arc<str>> {
        None
    }
}

#[cfg(feature = "tls")]
pub(super) use secured::{Secured, ServerSocket};

#[cfg(feature = "tls")]
mod secured {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::sync::Arc;

    use crate::socket::{Socket, TcpSocket};
    use crate::tls::TlsSocket;

    /// The socket of a connection.
    #[derive(Debug)]
    pub(in crate::server) enum ServerSocket {
        Plain(TcpSocket),
        /// A socket with TLS whose handshake is complete.
        Tls(Box<Secured>),
    }

    #[derive(Debug)]
    pub(in crate::server) struct Secured {
        pub(in crate::server) socket: TlsSocket<TcpSocket>,
        /// The client's identity, if it presented a certificate.
        pub(in crate::server) identity: Option<Arc<str>>,
    }

    impl ServerSocket {
        /// Returns the local address of the connection.
        pub(in crate::server) fn local_addr(&self) -> Option<std::net::SocketAddr> {
            match self {
                ServerSocket::Plain(socket) => socket.local_addr(),
                ServerSocket::Tls(secured) => secured.socket.get_ref().local_addr(),
            }
        }

        /// Returns the client's identity, if it presented a certificate.
        pub(in crate::server) fn identity(&self) -> Option<&Arc<str>> {
            match self {
                ServerSocket::Plain(_) => None,
                ServerSocket::Tls(secured) => secured.identity.as_ref(),
            }
        }
    }

    impl From<TcpSocket> for ServerSocket {
        fn from(socket: TcpSocket) -> Self {
            ServerSocket::Plain(socket)
        }
    }

    impl Socket for ServerSocket {
        fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self {
                ServerSocket::Plain(socket) => socket.recv(buffer),
                ServerSocket::Tls(secured) => secured.socket.recv(buffer),
            }
        }

        fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
            match self {
                ServerSocket::Plain(socket) => socket.discard(scratch),
                ServerSocket::Tls(secured) => secured.socket.discard(scratch),
            }
        }

        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self {
                ServerSocket::Plain(socket) => socket.send(bytes),
                ServerSocket::Tls(secured) => secured.socket.send(bytes),
            }
        }

        fn has_input(&self) -> bool {
            match self {
                ServerSocket::Plain(socket) => socket.has_input(),
                ServerSocket::Tls(secured) => secured.socket.has_input(),
            }
        }

        fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            match self {
                ServerSocket::Plain(socket) => Socket::as_fd(socket),
                ServerSocket::Tls(_) => None,
            }
        }

        fn wants_write(&self) -> bool {
            match self {
                ServerSocket::Plain(_) => false,
                ServerSocket::Tls(secured) => secured.socket.wants_write(),
            }
        }

        fn has_buffered(&self) -> bool {
            match self {
                ServerSocket::Plain(_) => false,
                ServerSocket::Tls(secured) => secured.socket.has_buffered(),
            }
        }

        fn has_received_part(&self) -> bool {
            match self {
                ServerSocket::Plain(_) => false,
                ServerSocket::Tls(secured) => secured.socket.has_received_part(),
            }
        }

        fn close(self) {
            match self {
                ServerSocket::Plain(socket) => socket.close(),
                ServerSocket::Tls(secured) => secured.socket.close(),
            }
        }
    }

    impl AsFd for ServerSocket {
        fn as_fd(&self) -> BorrowedFd<'_> {
            match self {
                ServerSocket::Plain(socket) => AsFd::as_fd(socket),
                ServerSocket::Tls(secured) => AsFd::as_fd(&secured.socket),
            }
        }
    }
}
