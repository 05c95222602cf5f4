//! Connections during the TLS handshake, which have no number yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::transport::{Secured, ServerSocket};
use crate::interest::Interest;
use crate::session::{Abort, Expiry, SessionLimits};
use crate::socket::{Socket, TcpSocket};
use crate::tls::{HandshakeFailure, ServerTls, TlsSocket};
use crate::tuning::INPUT_WAITS;

/// A failed TLS handshake, for which there is neither a file nor a number.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedHandshake {
    /// The address of the client, if the system knows it.
    pub peer: Option<SocketAddr>,
    /// Time from accept to failure.
    pub duration: Duration,
    /// The reason of the failure.
    pub failure: HandshakeFailure,
}

/// A TLS alert that is not an error (`user_canceled`, RFC 8446, section 6.1). It is sent to a
/// client that has been silent for half of the time limit. A slow TLS client ignores it; a client
/// without TLS, which waits for a greeting, learns from it that the server requires TLS.
const HINT: &[u8] = &[21, 3, 3, 0, 2, 1, 90];

/// The alert for a client that does not use TLS: `unexpected_message`, fatal.
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

/// The state of a connection after a step of its handshake.
#[derive(Debug)]
pub(super) enum Handshake {
    /// The handshake is not complete.
    Waiting(Box<Securing>),
    /// The handshake is complete.
    Complete(ServerSocket, Option<SocketAddr>),
    /// The handshake failed; the socket must be reset.
    Failed(TcpSocket, FailedHandshake),
}

impl Securing {
    /// Takes over a connection on which nothing has been sent or received.
    pub(super) fn begin(
        socket: TcpSocket,
        peer: Option<SocketAddr>,
        tls: ServerTls,
        limits: &SessionLimits,
        now: Instant,
    ) -> Result<Box<Self>, (TcpSocket, rustls::Error)> {
        let socket = TlsSocket::try_new(socket, tls.config())?;
        let end = limits.first_deadline(now);
        let hint = Hint::Due(Securing::first_deadline(limits, now));
        Ok(Box::new(Securing { socket, peer, tls, since: now, end, hint }))
    }

    /// Returns the deadline of a connection that is accepted now and sends nothing: that of the hint.
    pub(super) fn first_deadline(limits: &SessionLimits, now: Instant) -> Instant {
        now + (limits.first_deadline(now) - now) / 2
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

    /// Returns when to call [`handle_ready`](Securing::handle_ready) even if nothing has arrived.
    pub(super) fn deadline(&self) -> Instant {
        match self.hint {
            Hint::Due(hint) if !self.socket.has_heard() => hint,
            _ => self.end,
        }
    }

    /// Continues the handshake as far as the client's bytes allow.
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
                    self.send_hint();
                }
                return Handshake::Waiting(self);
            }
            Ok(false) => return self.expire(now),
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

    /// Handles the deadline on a thread that must not do cryptography, which takes long: sends the
    /// hint if it is due. While the socket has input, no limit counts as exceeded; the thread that
    /// receives the input must call [`handle_ready`](Securing::handle_ready).
    pub(super) fn check_deadline(&mut self, limits: &SessionLimits, now: Instant) -> Expiry {
        let deadline = self.deadline();
        if deadline > now {
            return Expiry::Later(deadline);
        }
        if self.socket.get_ref().has_input() {
            return Expiry::Later(now + INPUT_WAITS);
        }
        if now < self.end {
            self.send_hint();
            return Expiry::Later(self.end);
        }
        Expiry::Expired(Abort::Idle(limits.idle_timeout))
    }

    fn send_hint(&mut self) {
        self.hint = Hint::Sent;
        // If the hint cannot be sent, the failure at the deadline says the same.
        let _ = self.socket.get_mut().send(HINT);
    }

    /// Ends a handshake that was not complete in time.
    pub(super) fn expire(self: Box<Self>, now: Instant) -> Handshake {
        let limit = self.end - self.since;
        let failure = match self.socket.has_heard() {
            true => HandshakeFailure::Late(limit),
            false => HandshakeFailure::Silent(limit),
        };
        self.fail(failure, now)
    }

    /// Ends the handshake early.
    pub(super) fn fail(self: Box<Self>, failure: HandshakeFailure, now: Instant) -> Handshake {
        let duration = now.saturating_duration_since(self.since);
        let failed = FailedHandshake { peer: self.peer, duration, failure };
        Handshake::Failed(self.into_socket(), failed)
    }
}

/// The number of connections of each identity, if that is limited.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) max: Option<std::num::NonZeroU32>,
    held: std::sync::Mutex<std::collections::HashMap<Arc<str>, u32>>,
}

impl Identities {
    /// Counts a connection of this identity, until [`leave`](Identities::leave).
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

    /// Stops counting a connection of this identity.
    pub(super) fn leave(&self, identity: Option<&Arc<str>>) {
        let (Some(_), Some(identity)) = (self.max, identity) else { return };
        let mut held = self.held();
        if let Some(count) = held.get_mut(identity) {
            *count -= 1;
            if *count == 0 {
                held.remove(identity);
            }
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Arc<str>, u32>> {
        // Each change is one assignment, so the counts are correct even if another thread panics.
        self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
