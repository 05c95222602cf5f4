//! System calls on sockets.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, sockopt};
use socket2::SockRef;

use super::retry;

/// Sets the options of a connection: it never blocks, closing it resets it, what it sends is
/// not held back, and an urgent byte is a byte like any other.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    keep_urgent_bytes(stream)?;
    send_at_once(stream);
    reset_on_close(stream, true)
}

/// Switches Nagle's algorithm off, which holds bytes back while earlier ones are unacknowledged. This is
/// optional: without it, they may arrive 40 ms later.
pub(crate) fn send_at_once(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_tcp_nodelay(true);
}

/// Sets whether closing the socket, which the end of the process also does, resets the connection
/// (otherwise: FIN).
pub(crate) fn reset_on_close(socket: &impl AsFd, reset: bool) -> io::Result<()> {
    SockRef::from(socket).set_linger(reset.then_some(Duration::ZERO))
}

/// Keeps urgent bytes in their place in the stream.
pub(crate) fn keep_urgent_bytes(socket: &impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_oobinline(socket, true)?)
}

/// Receives available bytes into `buffer`; 0 is the peer's FIN.
pub(crate) fn recv(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| rustix::net::recv(&socket, &mut *buffer, RecvFlags::DONTWAIT)).map(|(_, count)| count)
}

/// Sends as many bytes as fit into the send buffer. A broken connection is an error, never a
/// signal.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    // Sockets are created with this option where the flag does not exist.
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::DONTWAIT;
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry(|| rustix::net::send(&socket, bytes, flags))
}

/// Result of sending from a file or a pipe within the kernel.
#[derive(Debug)]
#[cfg(feature = "client")]
#[cfg_attr(not(linux_sys), expect(dead_code, reason = "elsewhere it is always refused"))]
pub(crate) enum Moved {
    /// Number of bytes that were queued and that the source has advanced; 0 at its end.
    Queued(usize),
    /// The socket has no room, or the pipe is empty.
    Full,
    /// The kernel or the file system does not support the call here.
    Refused(io::Error),
    /// The source or the machine failed; reading the source reports the error.
    Fault,
    /// The connection failed.
    Broken(io::Error),
}
