//! The reactor's listening sockets.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use crate::interest::Interest;
use crate::server::listener::{Accepted, accept, prepare};
use crate::sys::event_queue::Poller;

/// The sockets a server listens on. The workers watch them: an event is delivered to one worker, and
/// the socket must be armed again afterwards.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<Arc<TcpListener>>,
    /// The token of the first socket; the others follow in order.
    first_token: u64,
}

impl Listeners {
    /// Takes over listening sockets and adds them to the event queue.
    pub(super) fn new(
        sockets: Vec<TcpListener>,
        first_token: u64,
        poller: &Poller,
    ) -> io::Result<Self> {
        for (token, socket) in (first_token..).zip(&sockets) {
            prepare(socket)?;
            poller.add(socket, token, Interest::Read)?;
        }
        let sockets = sockets.into_iter().map(Arc::new).collect();
        Ok(Listeners { sockets, first_token })
    }

    /// Accepts one connection from the socket with this token.
    pub(super) fn accept(&self, token: u64) -> Accepted {
        self.at(token).map_or(Accepted::Nothing, |socket| accept(socket))
    }

    /// Returns the socket with this token, unless it is closed.
    pub(super) fn socket(&self, token: u64) -> Option<Arc<TcpListener>> {
        self.at(token).cloned()
    }

    /// Arms all sockets.
    pub(super) fn arm_all(&self, poller: &Poller) -> io::Result<()> {
        self.tokens().zip(&self.sockets).try_for_each(|(token, socket)| arm(socket, poller, token))
    }

    /// Returns the tokens of all sockets.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u64> + use<> {
        self.first_token..self.first_token + self.sockets.len() as u64
    }

    /// Closes the sockets. A socket continues to listen if another process has a descriptor of it.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.sockets.drain(..).for_each(|socket| poller.remove(&socket));
    }

    fn at(&self, token: u64) -> Option<&Arc<TcpListener>> {
        self.sockets.get((token - self.first_token) as usize)
    }
}

/// Arms a socket again.
pub(super) fn arm(socket: &TcpListener, poller: &Poller, token: u64) -> io::Result<()> {
    poller.arm(socket, token, Interest::Read)
}
