//! A pipe that carries bytes from a socket to a file within the kernel: not supported.

use std::io;
use std::os::fd::BorrowedFd;

/// A type without values.
#[derive(Debug)]
pub(crate) enum Pipe {}

impl Pipe {
    pub(crate) fn new() -> io::Result<Pipe> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn fill(&mut self, _: BorrowedFd<'_>) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn drain(&mut self, _: BorrowedFd<'_>, _: usize) -> io::Result<usize> {
        match *self {}
    }

    pub(crate) fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}
