//! Calls on sockets.

use std::io;
use std::os::fd::AsFd;

use rustix::net::{RecvFlags, SendFlags};

use super::retry;

/// Receives what is there into `buffer`; 0 is the peer's FIN.
pub(crate) fn recv(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    retry(|| rustix::net::recv(&socket, &mut *buffer, RecvFlags::DONTWAIT)).map(|(_, count)| count)
}

/// Sends what fits; a broken connection is an error, never a signal.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    // Where there is no such flag, sockets are made that way.
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::DONTWAIT;
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry(|| rustix::net::send(&socket, bytes, flags))
}
