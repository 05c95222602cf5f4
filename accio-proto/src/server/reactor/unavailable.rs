//! The reactor, on systems without an event queue: never in use.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;

use super::connections::Connections;
use super::error::ServerError;
use crate::sink::FileSink;

/// Whether this system has an event queue to wait at.
pub(super) const IS_AVAILABLE: bool = false;

/// Has no value.
pub(super) struct Reactor<K>(Infallible, PhantomData<K>);

impl<K: FileSink> Reactor<K> {
    pub(super) fn new(_: Connections<K>, _: Vec<TcpListener>, _: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn run(self) -> Result<(), ServerError> {
        match self.0 {}
    }
}
