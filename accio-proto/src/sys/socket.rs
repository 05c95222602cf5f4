//! Calls on sockets.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags};

use super::retry;

/// Receives what is there into `buffer`; 0 is the peer's FIN.
pub(crate) fn recv(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| rustix::net::recv(&socket, &mut *buffer, RecvFlags::DONTWAIT)).map(|(_, count)| count)
}

/// Drops up to `scratch.len()` received bytes in the kernel and says how many; nothing is copied.
///
/// The slice only tells the length, but must be initialised memory: what the call leaves in it is
/// handed out as bytes.
pub(crate) fn discard(socket: impl AsFd, scratch: &mut [u8]) -> io::Result<usize> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    retry(|| rustix::net::recv(&socket, &mut *scratch, flags)).map(|(_, count)| count)
}

/// Sends what fits; a broken connection is an error, never a signal.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| rustix::net::send(&socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
}
