//! Name resolution and connecting, within one time limit.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::event::ClientEvent;
use super::family::Family;
use super::happy_eyeballs::{Failures, interleave, race};
use super::settings::Settings;
use crate::dialect::Dialect;
use crate::program_log as log;
use crate::sys::{self, resolve::ResolveError};

impl Settings {
    /// Connects to the first address of `host` that accepts the connection. Closing the returned
    /// socket resets it.
    pub(super) fn connect(
        &self,
        host: &str,
        port: u16,
        end: Option<Instant>,
    ) -> Result<(TcpStream, SocketAddr), ClientError> {
        let limit = self.config.connect_timeout;
        let start = Instant::now();
        let deadline = end.map_or(start + limit, |end| end.min(start + limit));
        let is_too_long = || end.is_some_and(|end| Instant::now() >= end);
        let addresses = self.resolve(host, port, deadline).map_err(|error| match error {
            ClientError::ResolveTimeout { .. } if is_too_long() => self.too_long(None, 0),
            error => error,
        })?;
        log::debug!("{host:?} is {addresses:?}");
        self.report(|| ClientEvent::Resolved {
            addresses: addresses.clone(),
            took: start.elapsed(),
        });
        let start = Instant::now();
        match race(&addresses, self.config.source_address, deadline)? {
            Ok((stream, peer)) => {
                log::debug!("connected to {peer}");
                self.report(|| ClientEvent::Connected {
                    peer,
                    local: stream.local_addr().ok(),
                    took: start.elapsed(),
                });
                Ok((stream, peer))
            }
            Err(failures) => {
                Err(match connect_error(self.config.dialect, host, port, limit, failures) {
                    ClientError::ConnectTimeout { .. } if is_too_long() => self.too_long(None, 0),
                    error => error,
                })
            }
        }
    }

    /// Returns the addresses of the host that may be used, in the order to try them.
    pub(super) fn resolve(
        &self,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, ClientError> {
        let mut addresses = resolve(host, port, deadline, self.config.connect_timeout)?;
        let families = [
            self.config.family,
            self.config.source_address.map_or(Family::Any, |source| Family::of(source.ip())),
        ];
        for family in families {
            addresses.retain(|address| family.has(address.ip()));
            if addresses.is_empty() {
                return Err(ClientError::NoAddress { host: host.to_owned(), family });
            }
        }
        Ok(interleave(addresses))
    }
}

/// Returns the error for a host of which no address accepted the connection.
pub(super) fn connect_error(
    dialect: Dialect,
    host: &str,
    port: u16,
    after: Duration,
    mut failures: Failures,
) -> ClientError {
    // An address that refuses a connection has another error; this one accepted it, and then reset it
    // before the client noticed that it was connected.
    let is_reset = |(_, error): &(_, io::Error)| error.kind() == io::ErrorKind::ConnectionReset;
    if let Some(found) = failures.iter().position(is_reset) {
        let (peer, cause) = failures.swap_remove(found);
        return match dialect {
            Dialect::Direct => ClientError::Reset { peer, sent: 0 },
            _ => ClientError::HandshakeBroken { peer, dialect, cause },
        };
    }
    let host = host.to_owned();
    let silent = |(_, error): &(_, io::Error)| error.kind() == io::ErrorKind::TimedOut;
    if !failures.is_empty() && failures.iter().all(silent) {
        return ClientError::ConnectTimeout { host, port, after };
    }
    ClientError::Connect { host, port, failures }
}

/// Returns the addresses of the host. The system's resolver has no time limit, so it runs in a
/// thread of its own, which is left to end by itself if it is late.
fn resolve(
    host: &str,
    port: u16,
    deadline: Instant,
    limit: Duration,
) -> Result<Vec<SocketAddr>, ClientError> {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    // A link-local address may have a zone, which the system's resolver translates.
    let is_scoped = |text: &str| {
        text.split_once('%')
            .is_some_and(|(ip, zone)| ip.parse::<Ipv6Addr>().is_ok() && !zone.is_empty())
    };
    let name = if is_scoped(literal) { literal } else { host };
    let failed = |ResolveError { is_temporary, cause }| ClientError::Resolve {
        host: host.to_owned(),
        is_temporary,
        cause,
    };
    let permanent = |text| ResolveError { is_temporary: false, cause: io::Error::other(text) };
    if host.is_empty() {
        return Err(failed(permanent("an empty name names no host")));
    }
    let name = name.to_owned();
    let (answer, answers) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("accio-resolve".into())
        .spawn(move || {
            // The receiver is gone if the result comes too late.
            let _ = answer.send(sys::resolve::resolve(&name, port));
        })
        .map_err(|cause| ClientError::Local { what: "start a thread", cause })?;
    match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(found) => found.map_err(failed),
        Err(RecvTimeoutError::Timeout) => {
            Err(ClientError::ResolveTimeout { host: host.to_owned(), after: limit })
        }
        Err(RecvTimeoutError::Disconnected) => Err(failed(permanent("the resolver failed"))),
    }
}
