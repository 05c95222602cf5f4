//! The listening sockets: binding them, and accepting as many connections as there is room for.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;
use crate::session::Interest;
use crate::session::TcpSocket;
use crate::sys;
use crate::sys::poll::Poller;

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

/// What one attempt to accept brought.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A connection; one of [`Listeners`] holds a place until [`Listeners::leave`].
    Connection(TcpSocket, Option<SocketAddr>),
    /// Nobody waits.
    Nobody,
    /// That connection failed before it could be accepted; the next may not.
    Failed,
    /// All places are taken.
    Full,
    /// The system has no descriptor or no memory left, or the socket itself is broken.
    Exhausted(io::Error),
    /// The socket is closed.
    Closed,
}

/// Binds `address` and listens there; on `[::]` for IPv4 too if `dual` says so.
pub(super) fn bind(address: SocketAddr, dual: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server need not wait for old connections to fade.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever the system's default.
        socket.set_only_v6(!dual)?;
    }
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    Ok(socket.into())
}

/// Makes a listening socket ready to [`accept`] from.
pub(super) fn prepare(socket: &TcpListener) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    // Accepted connections inherit it: whatever ends them but a graceful close, even the end of
    // this process, resets them, so no peer takes that for a kept file.
    socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
    // Inherited too: a byte sent as urgent is a byte of the file like any other.
    rustix::net::sockopt::set_socket_oobinline(socket, true).map_err(io::Error::from)
}

/// Accepts one connection of a socket that is [`prepare`]d.
pub(super) fn accept(socket: &TcpListener) -> Accepted {
    match sys::accept::accept(socket) {
        Ok((fd, peer)) => {
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
            Accepted::Connection(TcpSocket::accepted(TcpStream::from(fd)), peer)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Accepted::Nobody,
        Err(error) if is_of_one_connection(&error) => Accepted::Failed,
        Err(error) => Accepted::Exhausted(error),
    }
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

    /// Accepts one connection. Only whoever was handed the socket's event may call it.
    pub(super) fn accept(&self, index: usize) -> Accepted {
        if self.taken.fetch_add(1, Ordering::SeqCst) >= self.limit {
            self.leave();
            return Accepted::Full;
        }
        let failed = match &*self.sockets[index].socket() {
            None => Accepted::Closed,
            Some(socket) => match accept(socket) {
                connection @ Accepted::Connection(..) => return connection,
                failed => failed,
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

/// Whether accept failed for the one connection it took from the queue. Linux also hands out
/// network errors that were pending on it.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::TIMEDOUT
        )
    )
}
