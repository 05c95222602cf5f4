//! A connection that is under TLS and whose handshake is not complete: it has no number yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::transport::{Secured, ServerSocket};
use crate::session::SessionLimits;
use crate::socket::{Interest, Socket, TcpSocket};
use crate::tls::{HandshakeFailure, ServerTls, TlsSocket};

/// A failed TLS handshake, which leaves no file and has no number.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedHandshake {
    /// The client, where the system knows it.
    pub peer: Option<SocketAddr>,
    /// From accept to failure.
    pub duration: Duration,
    /// Why it failed.
    pub failure: HandshakeFailure,
}

/// A warning that is no error in TLS (`user_canceled`, RFC 8446, section 6.1): sent to a client that
/// has been silent for half of its time. A TLS client that is slow ignores it; one without TLS,
/// which waits for a greeting, learns from it that it is wrong here.
const HINT: &[u8] = &[21, 3, 3, 0, 2, 1, 90];

/// The alert for a client that does not speak TLS: `unexpected_message`, fatal.
const NOT_TLS: &[u8] = &[21, 3, 3, 0, 2, 2, 10];

/// A connection during its handshake.
#[derive(Debug)]
pub(super) struct Securing {
    socket: TlsSocket<TcpSocket>,
    peer: Option<SocketAddr>,
    tls: ServerTls,
    since: Instant,
    /// When the handshake must be complete.
    end: Instant,
    hint: Hint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hint {
    Due(Instant),
    Sent,
}

/// A connection after a step of its handshake.
#[derive(Debug)]
pub(super) enum Handshake {
    /// There is more to come.
    Waiting(Box<Securing>),
    /// It is secured.
    Complete(ServerSocket, Option<SocketAddr>),
    /// It failed; the socket is to be reset.
    Failed(TcpSocket, FailedHandshake),
}

impl Securing {
    /// Takes over a connection on which nothing was sent or received yet.
    pub(super) fn begin(
        socket: TcpSocket,
        peer: Option<SocketAddr>,
        tls: ServerTls,
        limits: &SessionLimits,
        now: Instant,
    ) -> Result<Box<Self>, (TcpSocket, rustls::Error)> {
        let socket = TlsSocket::try_new(socket, tls.config())?;
        // As soon as one that says nothing after its handshake would be ended: the deadlines of a
        // slot only ever move later.
        let end = limits.first_deadline(now);
        let hint = Hint::Due(now + (end - now) / 2);
        Ok(Box::new(Securing { socket, peer, tls, since: now, end, hint }))
    }

    pub(super) fn socket(&self) -> &TcpSocket {
        self.socket.get_ref()
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub(super) fn into_socket(self) -> TcpSocket {
        self.socket.into_inner()
    }

    pub(super) fn interest(&self) -> Interest {
        match self.socket.wants_write() {
            true => Interest::ReadWrite,
            false => Interest::Read,
        }
    }

    /// When to call [`handle_ready`](Securing::handle_ready) even if nothing has come.
    pub(super) fn deadline(&self) -> Instant {
        match self.hint {
            Hint::Due(hint) if !self.socket.has_heard() => hint,
            _ => self.end,
        }
    }

    /// Goes on as far as the client's bytes allow.
    pub(super) fn handle_ready(
        mut self: Box<Self>,
        identities: &Identities,
        now: Instant,
    ) -> Handshake {
        let failure = match self.socket.handshake() {
            Ok(true) => {
                let identity = self.tls.name(self.socket.peer_certificates());
                match identities.enter(identity.as_ref()) {
                    Err(failure) => failure,
                    Ok(()) => {
                        let Securing { socket, peer, .. } = *self;
                        let secured = Secured { socket, identity };
                        return Handshake::Complete(ServerSocket::Tls(Box::new(secured)), peer);
                    }
                }
            }
            Ok(false) if now < self.end => {
                if self.deadline() <= now {
                    self.hint = Hint::Sent;
                    // Should it not fit or not arrive, the deadline says the same later.
                    let _ = self.socket.get_mut().send(HINT);
                }
                return Handshake::Waiting(self);
            }
            Ok(false) if self.socket.has_heard() => HandshakeFailure::Late(self.end - self.since),
            Ok(false) => HandshakeFailure::Silent(self.end - self.since),
            Err(HandshakeFailure::Closed | HandshakeFailure::Lost(_))
                if self.hint == Hint::Sent && !self.socket.has_heard() =>
            {
                HandshakeFailure::Plain
            }
            Err(failure) => {
                if matches!(failure, HandshakeFailure::NotTls(_)) {
                    let _ = self.socket.get_mut().send(NOT_TLS);
                }
                failure
            }
        };
        self.fail(failure, now)
    }

    /// Ends it early.
    pub(super) fn fail(self: Box<Self>, failure: HandshakeFailure, now: Instant) -> Handshake {
        let duration = now.saturating_duration_since(self.since);
        let failed = FailedHandshake { peer: self.peer, duration, failure };
        Handshake::Failed(self.into_socket(), failed)
    }
}

/// How many connections each identity has, where that is limited.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) max: Option<std::num::NonZeroU32>,
    held: std::sync::Mutex<std::collections::HashMap<Arc<str>, u32>>,
}

impl Identities {
    /// Takes a place for a connection of this identity, until [`leave`](Identities::leave).
    pub(super) fn enter(&self, identity: Option<&Arc<str>>) -> Result<(), HandshakeFailure> {
        let (Some(max), Some(identity)) = (self.max, identity) else { return Ok(()) };
        let mut held = self.held();
        let count = held.entry(Arc::clone(identity)).or_insert(0);
        if *count >= max.get() {
            let identity = identity.to_string();
            return Err(HandshakeFailure::TooMany { identity, max: max.get() });
        }
        *count += 1;
        Ok(())
    }

    /// Gives the place of a connection back.
    pub(super) fn leave(&self, socket: &ServerSocket) {
        let (Some(_), Some(identity)) = (self.max, socket.identity()) else { return };
        let mut held = self.held();
        if let Some(count) = held.get_mut(identity) {
            *count -= 1;
            if *count == 0 {
                held.remove(identity);
            }
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Arc<str>, u32>> {
        // Each change is one step, so a panic elsewhere leaves the counts right.
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
