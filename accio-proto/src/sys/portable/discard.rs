//! Counting received bytes without copying them: not supported.

use std::io;
use std::os::fd::AsFd;

/// Receives up to `scratch.len()` bytes and returns their number.
pub(crate) fn discard(socket: impl AsFd, scratch: &mut [u8]) -> io::Result<usize> {
    crate::sys::socket::recv(socket, scratch)
}
