//! Stands in for the reactor on systems without an event queue; never used there.

use std::convert::Infallible;
use std::io;
use std::marker::PhantomData;
use std::net::TcpListener;

use super::connections::Connections;
use super::error::ServerError;
use crate::sink::FileSink;

/// Whether this system has an event queue.
pub(super) const IS_AVAILABLE: bool = false;

/// A type without values.
pub(super) struct Reactor<K>(Infallible, PhantomData<K>);

impl<K: FileSink> Reactor<K> {
    pub(super) fn new(_: Connections<K>, _: Vec<TcpListener>, _: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn run(self) -> Result<(), ServerError> {
        match self.0 {}
    }
}
