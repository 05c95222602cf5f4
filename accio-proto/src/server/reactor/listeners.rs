//! The reactor's listening sockets. Only the front thread uses them.

use std::io;
use std::net::TcpListener;

use crate::server::listener::{Accepted, accept, prepare};
use crate::sys::event_queue::Poller;

/// The sockets a server listens on.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<TcpListener>,
    /// The token of the first socket; the others follow in order.
    first_token: u64,
    is_watched: bool,
}

impl Listeners {
    /// Takes over listening sockets.
    pub(super) fn new(sockets: Vec<TcpListener>, first_token: u64) -> io::Result<Self> {
        sockets.iter().try_for_each(prepare)?;
        Ok(Listeners { sockets, first_token, is_watched: false })
    }

    /// Accepts one connection from the socket with this token.
    pub(super) fn accept(&self, token: u64) -> Accepted {
        match self.sockets.get((token - self.first_token) as usize) {
            Some(socket) => accept(socket),
            None => Accepted::Nothing,
        }
    }

    /// Adds the sockets to the event queue.
    pub(super) fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        if !self.is_watched {
            for (token, socket) in (self.first_token..).zip(&self.sockets) {
                poller.add_level(socket, token)?;
            }
            self.is_watched = true;
        }
        Ok(())
    }

    /// Removes the sockets from the event queue; connections wait in the backlog.
    pub(super) fn ignore(&mut self, poller: &Poller) {
        if std::mem::take(&mut self.is_watched) {
            self.sockets.iter().for_each(|socket| poller.remove(socket));
        }
    }

    /// Closes the sockets. A socket continues to listen if another process has a descriptor of it.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.ignore(poller);
        self.sockets.clear();
    }
}
