//! Accepting connections.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::io::Errno;

use crate::sys::socket;

/// Accepts one connection and sets all its options, inherited or not.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, Option<SocketAddr>)> {
    let (stream, peer) = listener.accept()?;
    #[cfg(target_vendor = "apple")]
    socket2::SockRef::from(&stream).set_nosigpipe(true)?;
    socket::prepare(&stream)?;
    Ok((stream, Some(peer)))
}

/// Returns whether accept failed because of the one connection it took from the queue. If that was
/// reset already, some systems report that an option cannot be set or that there is no address.
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
        || matches!(
            Errno::from_io_error(error),
            Some(
                Errno::CONNABORTED
                    | Errno::CONNRESET
                    | Errno::PROTO
                    | Errno::PERM
                    | Errno::NOTCONN
                    | Errno::INVAL
            )
        )
}
