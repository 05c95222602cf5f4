//! Accepting connections.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SocketAddrAny, SocketFlags};

use super::retry;

/// Accepts one connection, non-blocking and closed on exec.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    retry(|| rustix::net::acceptfrom_with(&listener, flags))
}
