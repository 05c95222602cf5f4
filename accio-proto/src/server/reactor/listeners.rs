//! The reactor's listening sockets, which accept as many connections as there is room for.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::server::listener::{Accepted, accept, prepare};
use crate::socket::Interest;
use crate::sys::event_queue::Poller;

/// The sockets a server listens on, and the places for connections that they share.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<Listener>,
    limit: usize,
    /// Places taken: by a connection from its accept to its end, or by an attempt to accept.
    taken: AtomicUsize,
}

#[derive(Debug)]
struct Listener {
    /// `None` once it is closed.
    socket: Mutex<Option<TcpListener>>,
    /// The token of its events.
    token: u64,
    /// Nobody watches the socket: the places are taken, or the system had no room. Whoever makes
    /// room, or the retry deadline, swaps this back and watches it again; only one of them can.
    asleep: AtomicBool,
}

/// Why nothing was accepted.
#[derive(Debug)]
pub(super) enum Untried {
    /// All places are taken.
    Full,
    /// The socket is closed.
    Closed,
}

impl Listeners {
    /// Takes listening sockets over; the first has token `first_token`, the next one the next.
    pub(super) fn new(
        sockets: Vec<TcpListener>,
        limit: usize,
        first_token: u64,
    ) -> io::Result<Self> {
        let sockets = (first_token..)
            .zip(sockets)
            .map(|(token, socket)| {
                prepare(&socket)?;
                let socket = Mutex::new(Some(socket));
                Ok(Listener { socket, token, asleep: AtomicBool::new(false) })
            })
            .collect::<io::Result<_>>()?;
        Ok(Listeners { sockets, limit, taken: AtomicUsize::new(0) })
    }

    /// Adds all sockets to the event queue.
    pub(super) fn watch(&self, poller: &Poller) -> io::Result<()> {
        self.sockets.iter().try_for_each(|listener| match &*listener.socket() {
            Some(socket) => poller.add(socket, listener.token, Interest::Read),
            None => Ok(()),
        })
    }

    /// Arms one socket again, if it is still open.
    pub(super) fn arm(&self, poller: &Poller, index: usize) -> io::Result<()> {
        let listener = &self.sockets[index];
        match &*listener.socket() {
            Some(socket) => poller.arm(socket, listener.token, Interest::Read),
            None => Ok(()),
        }
    }

    /// Accepts one connection, which then holds a place. Only whoever was handed the socket's event
    /// may call it.
    ///
    /// # Errors
    ///
    /// Nothing was tried.
    pub(super) fn accept(&self, index: usize) -> Result<Accepted, Untried> {
        if self.taken.fetch_add(1, Ordering::SeqCst) >= self.limit {
            self.leave();
            return Err(Untried::Full);
        }
        let failed = match &*self.sockets[index].socket() {
            None => Err(Untried::Closed),
            Some(socket) => match accept(socket) {
                connection @ Accepted::Connection(..) => return Ok(connection),
                failed => Ok(failed),
            },
        };
        self.leave();
        failed
    }

    /// Gives a place back; of a connection, after its descriptors are closed.
    /// [`wake`](Listeners::wake) is to follow.
    pub(super) fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many places are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Lets a socket sleep until [`wake`](Listeners::wake).
    pub(super) fn sleep(&self, index: usize) {
        self.sockets[index].asleep.store(true, Ordering::SeqCst);
    }

    /// Arms the sockets that sleep, if there is room. One that cannot be armed sleeps on.
    pub(super) fn wake(&self, poller: &Poller) -> io::Result<()> {
        for (index, listener) in self.sockets.iter().enumerate() {
            if self.taken() < self.limit
                && listener.asleep.load(Ordering::SeqCst)
                && listener.asleep.swap(false, Ordering::SeqCst)
            {
                self.arm(poller, index).inspect_err(|_| self.sleep(index))?;
            }
        }
        Ok(())
    }

    /// Stops listening. Where another process has a descriptor of the same socket, it goes on.
    pub(super) fn close(&self, poller: &Poller) {
        for listener in &self.sockets {
            if let Some(socket) = listener.socket().take() {
                poller.remove(socket);
            }
        }
    }
}

impl Listener {
    /// Held over calls that never block.
    fn socket(&self) -> MutexGuard<'_, Option<TcpListener>> {
        // It is only ever emptied, so a panic elsewhere leaves it whole.
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
