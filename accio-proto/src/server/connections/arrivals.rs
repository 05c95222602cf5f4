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
use crate::server::admission::Refusal;
use crate::server::connection::{Connection, ConnectionInfo, Peer, Progress, Unnumbered};
use crate::server::proxy_protocol::{Arrival, Arriving};
#[cfg(feature = "tls")]
use crate::server::tls_handshake::{FailedHandshake, Handshake, Securing};
use crate::server::transport::ServerSocket;
use crate::session::Session;
use crate::sink::FileSink;
use crate::socket::TcpSocket;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;

/// The server's decision on a new connection.
#[derive(Debug)]
#[must_use]
pub(in crate::server) enum Decision {
    /// The PROXY header comes first.
    AwaitHeader,
    /// The client may not connect.
    Refuse(Refusal),
    /// The connection is admitted, and gets its number after its TLS handshake.
    #[cfg(feature = "tls")]
    Secure(ServerTls),
    /// The connection is admitted and has this number, unless none is left.
    Serve(Option<u64>),
}

impl<K: FileSink> Connections<K> {
    /// Decides on a connection that was just accepted. Calls no code of the program, so the caller may
    /// hold a lock to decide in the order of acceptance.
    pub(in crate::server) fn decide(&self, peer: Option<SocketAddr>, now: Instant) -> Decision {
        match self.config.proxy_protocol {
            true => Decision::AwaitHeader,
            false => self.decide_on_client(peer, now),
        }
    }

    fn decide_on_client(&self, peer: Option<SocketAddr>, now: Instant) -> Decision {
        if let Err(why) = self.config.admission.admit(peer, now) {
            return Decision::Refuse(why);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = self.controls.tls() {
            return Decision::Secure(tls);
        }
        Decision::Serve(self.next_id())
    }

    /// Carries out the decision on a connection that was just accepted. Call
    /// [`greet`](Connections::greet) next.
    pub(in crate::server) fn receive(
        &self,
        socket: TcpSocket,
        peer: Option<SocketAddr>,
        decision: Decision,
        now: Instant,
    ) -> Progress<K> {
        if self.paused.load(Ordering::Relaxed) && self.paused.swap(false, Ordering::Relaxed) {
            log::warn!("accepting connections again");
        }
        self.carry_out(socket, peer, decision, now)
    }

    fn carry_out(
        &self,
        socket: TcpSocket,
        peer: Option<SocketAddr>,
        decision: Decision,
        now: Instant,
    ) -> Progress<K> {
        match decision {
            Decision::AwaitHeader => {
                let arrival = Arrival::new(socket, peer, &self.config, now);
                Progress::Waiting(Connection::Arriving(arrival))
            }
            Decision::Refuse(why) => {
                let peer = Peer(peer);
                let (limit, log) = (why.limit(), &self.limit_log);
                log.log(limit, now, format_args!("refused a connection from {peer}: {why}"));
                self.controls.counters.refused();
                Progress::Unnumbered(Unnumbered::Refused(socket.into()))
            }
            #[cfg(feature = "tls")]
            Decision::Secure(tls) => {
                match Securing::begin(socket, peer, tls, &self.config.limits, now) {
                    Ok(securing) => Progress::Waiting(Connection::Securing(securing)),
                    Err((socket, why)) => {
                        log::error!("cannot begin a TLS handshake: {why}");
                        self.config.admission.leave(peer);
                        self.controls.counters.refused();
                        Progress::Unnumbered(Unnumbered::Refused(socket.into()))
                    }
                }
            }
            Decision::Serve(id) => self.begin(socket.into(), peer, id, now),
        }
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
        match self.begin(socket, peer, self.next_id(), now) {
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

    /// Begins the session of an admitted connection, if it has a number.
    fn begin(
        &self,
        socket: ServerSocket,
        peer: Option<SocketAddr>,
        id: Option<u64>,
        now: Instant,
    ) -> Progress<K> {
        let Some(id) = id else {
            self.config.admission.leave(peer);
            #[cfg(feature = "tls")]
            self.config.identities.leave(socket.identity());
            self.controls.counters.refused();
            return Progress::Unnumbered(Unnumbered::Refused(socket));
        };
        self.controls.counters.accepted();
        log::debug!("connection {id}: accepted from {}", Peer(peer));
        if id == u64::MAX {
            log::error!("connection {id} has the last number: accepting no more connections");
        }
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
        }
        Some(id)
    }

    pub(super) fn handle_arrival(&self, arrival: Arrival, now: Instant) -> Progress<K> {
        Progress::Unnumbered(match arrival.handle_ready(&self.config, now) {
            Arriving::Waiting(arrival) => return Progress::Waiting(Connection::Arriving(arrival)),
            Arriving::Arrived(socket, peer) => {
                let decision = self.decide_on_client(peer, now);
                return match self.carry_out(socket, peer, decision, now) {
                    Progress::Waiting(connection) => self.greet(connection),
                    refused => refused,
                };
            }
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
