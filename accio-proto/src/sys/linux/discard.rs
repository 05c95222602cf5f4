//! Counting received bytes without copying them.

use std::io;
use std::os::fd::AsFd;

use rustix::net::RecvFlags;

use crate::sys::retry;

/// Drops up to `scratch.len()` received bytes in the kernel without copying them, and returns their
/// number.
///
/// The slice only passes the length, but must be initialised memory, because the call returns it as
/// bytes.
pub(crate) fn discard(socket: impl AsFd, scratch: &mut [u8]) -> io::Result<usize> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
    retry(|| rustix::net::recv(&socket, &mut *scratch, flags)).map(|(_, count)| count)
}
