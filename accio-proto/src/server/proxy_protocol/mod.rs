//! The PROXY protocol, versions 1 and 2: a header with which a proxy names its client before any
//! other byte.
//!
//! Only bytes of the header are taken from the connection: the following ones belong to the client.

mod header;

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::config::Config;
use crate::dialect::{Dialect, GREETING, ServerDialect};
use crate::limits::PROXY_HEADER_MAX;
use crate::socket::{Socket, TcpSocket};
pub(in crate::server) use header::HeaderError;
use header::{Header, Origin};

/// A connection whose header is not complete.
#[derive(Debug)]
pub(super) struct Arrival {
    socket: TcpSocket,
    /// The address of the proxy.
    proxy: Option<SocketAddr>,
    header: Header,
    deadline: Instant,
}

/// The state of a connection after a part of its header.
#[derive(Debug)]
pub(super) enum Arriving {
    /// There is more to come.
    Waiting(Arrival),
    /// The header is complete, and names this peer.
    Arrived(TcpSocket, Option<SocketAddr>),
    /// The proxy has checked whether the server is alive, and was greeted.
    Checked(TcpSocket),
    /// It has no header.
    Refused(TcpSocket, Option<SocketAddr>, HeaderError),
}

impl Arrival {
    pub(super) fn new(
        socket: TcpSocket,
        proxy: Option<SocketAddr>,
        config: &Config,
        now: Instant,
    ) -> Self {
        // The same deadline as for a connection that sends nothing after its header, because the
        // deadlines of a slot may only move later.
        let deadline = config.limits.first_deadline(now);
        Arrival { socket, proxy, header: Header::default(), deadline }
    }

    pub(super) fn socket(&self) -> &TcpSocket {
        &self.socket
    }

    /// Returns when the header must be complete.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn into_socket(self) -> TcpSocket {
        self.socket
    }

    /// Receives the available part of the header.
    pub(super) fn handle_ready(mut self, config: &Config, now: Instant) -> Arriving {
        let origin = match self.receive() {
            Ok(None) if self.deadline <= now => Err(HeaderError::Late),
            other => other,
        };
        match origin {
            Err(why) => Arriving::Refused(self.socket, self.proxy, why),
            Ok(None) => Arriving::Waiting(self),
            Ok(Some(Origin::Client(peer))) => Arriving::Arrived(self.socket, Some(peer)),
            Ok(Some(Origin::Unknown)) => Arriving::Arrived(self.socket, self.proxy),
            Ok(Some(Origin::Proxy)) => {
                if config.dialect != ServerDialect::from(Dialect::Direct) {
                    // The greeting fits into any send buffer; if sending fails, the proxy is gone
                    // already.
                    let _ = self.socket.send(GREETING);
                }
                Arriving::Checked(self.socket)
            }
        }
    }

    fn receive(&mut self) -> Result<Option<Origin>, HeaderError> {
        let mut bytes = [0; PROXY_HEADER_MAX];
        loop {
            let there = match self.socket.peek(&mut bytes) {
                Ok(0) => return Err(HeaderError::Closed(self.header.len())),
                Ok(there) => there,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(HeaderError::Lost(error)),
            };
            let (taken, origin) = self.header.receive(&bytes[..there])?;
            // Bytes that were peeked at can be received.
            let mut left = taken;
            while left > 0 {
                left -= self.socket.recv(&mut bytes[..left]).map_err(HeaderError::Lost)?;
            }
            if origin.is_some() {
                return Ok(origin);
            }
        }
    }
}
