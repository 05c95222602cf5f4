//! Number of bytes that the peer of a connection has not acknowledged: not supported.

use std::net::TcpStream;

/// A type without values.
#[derive(Debug)]
pub(crate) enum Unacked {}

impl Unacked {
    pub(crate) fn of(_: &TcpStream) -> Option<Self> {
        None
    }

    pub(crate) fn outstanding(&mut self) -> Option<u64> {
        match *self {}
    }
}
