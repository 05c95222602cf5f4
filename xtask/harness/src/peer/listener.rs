//! Accepts connections of the program under test.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, Socket, Type};

use super::connection::{Peer, SOON};
use crate::verdict::{Stop, Verdict};

/// A listening socket, controlled by a scenario.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
}

impl Listener {
    /// Listens on 127.0.0.1 at a port that the kernel chooses.
    pub fn bind() -> Verdict<Listener> {
        Listener::with(128, None)
    }

    /// Listens on 127.0.0.1 with this backlog, and this receive buffer size for accepted
    /// connections.
    pub fn with(backlog: i32, receive_buffer: Option<usize>) -> Verdict<Listener> {
        Listener::at((Ipv4Addr::LOCALHOST, 0).into(), backlog, receive_buffer)
    }

    /// Listens on `address`.
    pub fn at(
        address: SocketAddr,
        backlog: i32,
        receive_buffer: Option<usize>,
    ) -> Verdict<Listener> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        if address.port() != 0 {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| Stop::Trouble("a socket without an address".into()))?;
        Ok(Listener { socket, address })
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Accepts the next connection, without a time limit.
    pub fn next(&self) -> Verdict<Peer> {
        Peer::new(self.socket.accept()?.0.into())
    }

    /// Accepts the next connection; returns a fault if there is none soon.
    pub fn accept(&self) -> Verdict<Peer> {
        let peer = self.accept_within(SOON)?;
        peer.ok_or_else(|| Stop::fault("the client to connect", "it did not"))
    }

    /// Accepts the next connection, or returns `None` after `time`.
    pub fn accept_within(&self, time: Duration) -> Verdict<Option<Peer>> {
        let mut descriptors = [PollFd::new(&self.socket, PollFlags::IN)];
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match rustix::event::poll(&mut descriptors, Timespec::try_from(left).ok().as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(0) => return Ok(None),
                Ok(_) => return Peer::new(self.socket.accept()?.0.into()).map(Some),
            }
        }
    }
}
