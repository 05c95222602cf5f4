//! New connections: admission, the TLS handshake and the number.
#![cfg_attr(
    not(feature = "tls"),
    allow(clippy::useless_conversion, reason = "the server's socket is a TCP socket then")
)]

use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Connections;
#[cfg(feature = "tls")]
use crate::panics::caught;
use crate::program_log as log;
use crate::server::connection::{Connection, ConnectionInfo, Peer, Progress, Unnumbered};
use crate::server::proxy_protocol::{Arrival, Arriving};
#[cfg(feature = "tls")]
use crate::server::tls_handshake::{FailedHandshake, Handshake, Securing};
use crate::server::transport::ServerSocket;
use crate::session::Session;
use crate::sink::FileSink;
use crate::socket::TcpSocket;

impl<K: FileSink> Connections<K> {
    /// Admits or refuses a connection; an admitted one continues with its TLS handshake or its
    /// number.
    pub(super) fn admit(
        &self,
        socket: TcpSocket,
        peer: Option<SocketAddr>,
        now: Instant,
    ) -> Progress<K> {
        if let Err(why) = self.config.admission.admit(peer, now) {
            let peer = Peer(peer);
            let (limit, log) = (why.limit(), &self.limit_log);
            log.log(limit, now, format_args!("refused a connection from {peer}: {why}"));
            self.controls.counters.refused();
            return Progress::Unnumbered(Unnumbered::Refused(socket.into()));
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = self.controls.tls() {
            return match Securing::begin(socket, peer, tls, &self.config.limits, now) {
                Ok(securing) => Progress::Waiting(Connection::Securing(securing)),
                Err((socket, why)) => {
                    log::error!("cannot begin a TLS handshake: {why}");
                    self.config.admission.leave(peer);
                    self.controls.counters.refused();
                    Progress::Unnumbered(Unnumbered::Refused(socket.into()))
                }
            };
        }
        self.number(socket.into(), peer, now)
    }

    /// Continues a TLS handshake, and greets the connection once it is complete.
    #[cfg(feature = "tls")]
    pub(super) fn secure(&self, securing: Box<Securing>, now: Instant) -> Progress<K> {
        let peer = securing.peer();
        let proceed = || securing.handle_ready(&self.config.identities, now);
        // The program's code, which chooses certificates and identities, may panic.
        let handshake = catch_unwind(AssertUnwindSafe(proceed)).unwrap_or_else(|panic| {
            self.config.admission.leave(peer);
            resume_unwind(panic)
        });
        let (socket, peer) = match handshake {
            Handshake::Waiting(securing) => {
                return Progress::Waiting(Connection::Securing(securing));
            }
            Handshake::Complete(socket, peer) => (socket, peer),
            failed => return self.fail_handshake(failed),
        };
        match self.number(socket, peer, now) {
            Progress::Waiting(connection) => self.greet(connection),
            refused => refused,
        }
    }

    /// Reports a failed TLS handshake.
    #[cfg(feature = "tls")]
    pub(super) fn fail_handshake(&self, handshake: Handshake) -> Progress<K> {
        let Handshake::Failed(socket, failed) = handshake else {
            unreachable!("only called for a handshake that failed")
        };
        let FailedHandshake { peer, failure, .. } = &failed;
        log::info!("refused a connection from {}: {failure}", Peer(*peer));
        self.config.admission.leave(*peer);
        self.controls.counters.refused();
        if caught(|| (self.config.on_handshake_failure)(&failed)).is_none() {
            log::error!("the observer of failed handshakes panicked");
        }
        Progress::Unnumbered(Unnumbered::Refused(socket.into()))
    }

    /// Assigns a number to an admitted connection, if one is left.
    fn number(&self, socket: ServerSocket, peer: Option<SocketAddr>, now: Instant) -> Progress<K> {
        let Some(id) = self.next_id() else {
            self.config.admission.leave(peer);
            #[cfg(feature = "tls")]
            self.config.identities.leave(socket.identity());
            self.controls.counters.refused();
            return Progress::Unnumbered(Unnumbered::Refused(socket));
        };
        self.controls.counters.accepted();
        log::debug!("connection {id}: accepted from {}", Peer(peer));
        let mut connection = crate::Connection::new(id);
        connection.peer = peer;
        if self.config.local_addresses {
            connection.local = socket.local_addr();
        }
        connection.identity = socket.identity().cloned();
        let session = Session::begin(connection, socket, self.config.dialect, now);
        #[cfg(feature = "digest")]
        let session = match self.config.digest {
            None => session,
            Some(algorithm) => session.digest(algorithm),
        };
        let place = self.controls.in_progress.enter(session.connection().clone(), now);
        let info = ConnectionInfo { id, peer, since: now, place };
        Progress::Waiting(Connection::Serving(session, info))
    }

    /// Returns the next number. After the last one the server accepts nothing, because a repeated
    /// number would replace a file.
    fn next_id(&self) -> Option<u64> {
        if self.is_exhausted() {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if id < self.config.first_id {
            // Another thread has just assigned the last number.
            return None;
        }
        if id == u64::MAX {
            self.exhausted.store(true, Ordering::Relaxed);
            log::error!("connection {id} has the last number: accepting no more connections");
        }
        Some(id)
    }

    pub(super) fn handle_arrival(&self, arrival: Arrival, now: Instant) -> Progress<K> {
        Progress::Unnumbered(match arrival.handle_ready(&self.config, now) {
            Arriving::Waiting(arrival) => return Progress::Waiting(Connection::Arriving(arrival)),
            Arriving::Arrived(socket, peer) => match self.admit(socket, peer, now) {
                Progress::Waiting(connection) => return self.greet(connection),
                refused => return refused,
            },
            Arriving::Checked(socket) => {
                log::debug!("a proxy checked the server");
                Unnumbered::Checked(socket.into())
            }
            Arriving::Refused(socket, proxy, why) => {
                let (now, peer) = (Instant::now(), Peer(proxy));
                let log = &self.limit_log;
                log.log(
                    "proxy-protocol",
                    now,
                    format_args!("refused a connection from {peer}: {why}"),
                );
                self.controls.counters.refused();
                Unnumbered::Refused(socket.into())
            }
        })
    }
}
