//! From a host's name to a connection, within one time limit.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::ClientError;
use crate::sys::client::open;

/// Connects to the first address of `host` that takes it. The socket is armed to reset.
pub(super) fn connect(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<(TcpStream, SocketAddr), ClientError> {
    let deadline = Instant::now() + limit;
    let addresses = resolve(host, port, deadline, limit)?;
    log::debug!("{host:?} is {addresses:?}");
    let mut failures = Vec::new();
    for (tried, address) in addresses.iter().enumerate() {
        // A fair share of what is left: one silent address must not take it all.
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match attempt(*address, share)? {
            Ok(stream) => return Ok((stream, *address)),
            Err(error) => {
                log::debug!("connect to {address}: {error}");
                failures.push((*address, error));
            }
        }
    }
    let host = host.to_owned();
    let silent = |(_, error): &(_, io::Error)| error.kind() == io::ErrorKind::TimedOut;
    if !failures.is_empty() && failures.iter().all(silent) {
        return Err(ClientError::ConnectTimeout { host, port, after: limit });
    }
    Err(ClientError::Connect { host, port, failures })
}

/// One address. The outer error is this machine's fault and ends it all.
fn attempt(
    address: SocketAddr,
    share: Duration,
) -> Result<Result<TcpStream, io::Error>, ClientError> {
    if share.is_zero() {
        return Ok(Err(Errno::TIMEDOUT.into()));
    }
    let socket = match open(address) {
        Ok(socket) => socket,
        // A kernel without IPv6: the other addresses may do.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => {
            return Ok(Err(error));
        }
        Err(source) => return Err(ClientError::Local { what: "open a socket", source }),
    };
    if let Err(error) = socket.connect_timeout(&address.into(), share) {
        return Ok(Err(error));
    }
    let stream = TcpStream::from(socket);
    // A port of this machine's own ephemeral range that nobody listens on can connect to itself.
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(local), Ok(peer)) if local == peer => Ok(Err(Errno::CONNREFUSED.into())),
        (Ok(_), Ok(_)) => Ok(Ok(stream)),
        (Err(error), _) | (_, Err(error)) => Ok(Err(error)),
    }
}

/// The host's addresses. The system's resolver knows no time limit, so it runs in a thread of its
/// own; one that is late is left to end by itself.
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
    let failed = |source| ClientError::Resolve { host: host.to_owned(), source };
    if host.is_empty() {
        return Err(failed(io::Error::other("an empty name names no host")));
    }
    let name = host.to_owned();
    let (answer, answers) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("accio-resolve".into())
        .spawn(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Vec::from_iter);
            // Nobody listens any more when it is late.
            let _ = answer.send(found);
        })
        .map_err(|source| ClientError::Local { what: "start a thread", source })?;
    match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(found) => found.map_err(failed),
        Err(RecvTimeoutError::Timeout) => {
            Err(ClientError::ResolveTimeout { host: host.to_owned(), after: limit })
        }
        Err(RecvTimeoutError::Disconnected) => Err(failed(io::Error::other("the resolver failed"))),
    }
}
