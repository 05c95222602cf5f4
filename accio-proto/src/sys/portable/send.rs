//! Sending within the kernel, and other calls of Linux for a client: not supported.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::sys::socket::Moved;

pub(crate) fn give_up_after(_: &TcpStream, _: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn send_file(_: &TcpStream, _: &File, _: usize) -> Moved {
    Moved::Refused(io::ErrorKind::Unsupported.into())
}

pub(crate) fn widen(_: &File) {}

pub(crate) fn send_pipe(_: &TcpStream, _: &File, _: usize) -> Moved {
    Moved::Refused(io::ErrorKind::Unsupported.into())
}
