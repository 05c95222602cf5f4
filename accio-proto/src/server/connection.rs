//! A connection and its states, for both threading modes.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::config::Config;
use super::in_progress::Place;
use super::proxy_protocol::Arrival;
#[cfg(feature = "tls")]
use super::tls_handshake::Securing;
use super::transport::ServerSocket;
use crate::interest::Interest;
use crate::session::{Abort, Closing, Expiry, Session};
use crate::sink::FileSink;
use crate::socket::Socket;

/// A connection, from its accept to its end.
pub(super) enum Connection<K: FileSink> {
    /// The PROXY header is not complete.
    Arriving(Arrival),
    /// The TLS handshake is not complete.
    #[cfg(feature = "tls")]
    Securing(Box<Securing>),
    /// The connection has a number and a session.
    Serving(Session<ServerSocket, K::File>, ConnectionInfo),
    /// Its file is complete and under review.
    Reviewing(Box<Ending<K>>),
}

/// The state of a connection after its turn.
pub(super) enum Progress<K: FileSink> {
    /// The connection waits for its socket, or for its next turn.
    Waiting(Connection<K>),
    /// The session has ended; pass it to [`finish`](super::connections::Connections::finish).
    Ended(Ending<K>),
    /// The connection ends without a number; call [`Unnumbered::close`].
    Unnumbered(Unnumbered),
}

/// A connection whose file must be committed or aborted.
#[must_use]
pub(super) struct Ending<K: FileSink> {
    pub(super) closing: Closing<ServerSocket, K::File>,
    pub(super) info: ConnectionInfo,
}

/// A connection that ends without a number, and therefore without a file.
#[must_use]
pub(super) enum Unnumbered {
    /// The connection is refused and must be reset.
    Refused(ServerSocket),
    /// A proxy has checked whether the server is alive.
    Checked(ServerSocket),
}

/// The server's information about a connection, in addition to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionInfo {
    pub(super) id: u64,
    pub(super) peer: Option<SocketAddr>,
    /// Time at which it was numbered.
    pub(super) since: Instant,
    /// Its entry in the list of connections in service.
    pub(super) place: Place,
}

impl<K: FileSink> Connection<K> {
    /// Returns the socket to watch.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Arriving(arrival) => AsFd::as_fd(arrival.socket()),
            #[cfg(feature = "tls")]
            Connection::Securing(securing) => AsFd::as_fd(securing.socket()),
            Connection::Serving(session, _) => AsFd::as_fd(session.socket()),
            Connection::Reviewing(ending) => AsFd::as_fd(ending.closing.socket()),
        }
    }

    /// Returns whether the connection waits for its PROXY header, which is cheap to receive.
    pub(super) fn is_arriving(&self) -> bool {
        matches!(self, Connection::Arriving(_))
    }

    /// Returns the number and the peer, once the connection has a number.
    pub(super) fn info(&self) -> Option<ConnectionInfo> {
        match self {
            Connection::Arriving(_) => None,
            #[cfg(feature = "tls")]
            Connection::Securing(_) => None,
            Connection::Serving(_, info) => Some(*info),
            Connection::Reviewing(ending) => Some(ending.info),
        }
    }

    /// Returns the events to watch the socket for.
    pub(super) fn interest(&self) -> Interest {
        match self {
            Connection::Arriving(_) => Interest::Read,
            #[cfg(feature = "tls")]
            Connection::Securing(securing) => securing.interest(),
            Connection::Serving(session, _) => session.interest(),
            Connection::Reviewing(_) => Interest::Read,
        }
    }

    /// Returns when to check the limits; never moves earlier.
    pub(super) fn deadline(&self, config: &Config) -> Instant {
        match self {
            Connection::Arriving(arrival) => arrival.deadline(),
            #[cfg(feature = "tls")]
            Connection::Securing(securing) => securing.deadline(),
            Connection::Serving(session, _) => session.deadline(&config.limits),
            Connection::Reviewing(_) => config.limits.first_deadline(Instant::now()),
        }
    }

    /// Returns whether the next turn may open a file.
    pub(super) fn may_open(&self) -> bool {
        match self {
            Connection::Arriving(_) => false,
            #[cfg(feature = "tls")]
            Connection::Securing(_) => false,
            Connection::Serving(session, _) => session.may_open(),
            Connection::Reviewing(_) => false,
        }
    }

    /// Checks, without moving content or doing cryptography, whether the connection has exceeded a limit.
    pub(super) fn check_deadline(&mut self, config: &Config, now: Instant) -> Expiry {
        match self {
            Connection::Arriving(arrival) => match arrival.deadline() {
                deadline if deadline > now => Expiry::Later(deadline),
                _ => Expiry::Expired(Abort::Idle(config.limits.idle_timeout)),
            },
            #[cfg(feature = "tls")]
            Connection::Securing(securing) => securing.check_deadline(&config.limits, now),
            Connection::Serving(session, _) => session.check_deadline(&config.limits, now),
            // No later than the first deadline of the next connection in the same slot.
            Connection::Reviewing(_) => Expiry::Later(config.limits.first_deadline(now)),
        }
    }
}

impl Unnumbered {
    pub(super) fn socket(&self) -> &ServerSocket {
        match self {
            Unnumbered::Refused(socket) => socket,
            Unnumbered::Checked(socket) => socket,
        }
    }

    /// Ends the connection: with FIN after a check by the proxy, otherwise with a reset.
    pub(super) fn close(self) {
        match self {
            Unnumbered::Refused(_) => {}
            Unnumbered::Checked(socket) => socket.close(),
        }
    }
}

/// Formats a peer's address for the log.
pub(super) struct Peer(pub(super) Option<SocketAddr>);

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("an unknown address"),
        }
    }
}
