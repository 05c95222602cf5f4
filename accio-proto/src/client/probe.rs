//! Probing a server without sending a byte.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Client;
use super::connection::{Connection, Received};
use super::error::ClientError;
use super::happy_eyeballs::race;
use crate::dialect::GREETING;
use crate::limits;
use crate::sys::client::{is_gone, wait};
use crate::tuning::client::PROBE_PAUSE;

/// Result of [`Client::probe`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Probe {
    /// Addresses of the host that the client may use.
    pub addresses: Vec<SocketAddr>,
    /// Time that name resolution took.
    pub resolved_in: Duration,
    /// Results for the first address of each family.
    pub probed: Vec<AddressProbe>,
}

/// Result for one address.
#[derive(Debug)]
#[non_exhaustive]
pub struct AddressProbe {
    /// The address.
    pub address: SocketAddr,
    /// The bytes that the server sent, or the error of the connection attempt.
    pub result: Result<ServerReply, io::Error>,
}

/// Bytes that a server sent to a silent client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReply {
    /// Time that connecting took.
    pub connected_in: Duration,
    /// Time from then to the first byte.
    pub spoke_after: Option<Duration>,
    /// The bytes received, at most [`limits::PROBE_BYTES`].
    pub bytes: Vec<u8>,
    /// Interpretation of the bytes.
    pub finding: Finding,
}

/// Interpretation of the first bytes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finding {
    /// The greeting and nothing else, as in the dialects `accio` and `confirm`, which begin alike.
    Greets,
    /// No byte: the server requires TLS, speaks the dialect `direct`, is at its connection limit, or
    /// is not an Accio server.
    Silent,
    /// The server closed the connection before the end of the greeting.
    Hangs,
    /// A part of the greeting, without the rest in time.
    Stops,
    /// Other bytes: the server speaks another protocol.
    Foreign,
}

impl Client {
    /// Resolves `host`, connects to its first address of each family, receives the first bytes of
    /// each server and resets the connection. No byte is sent.
    ///
    /// The client listens for [`handshake_timeout`](super::ClientBuilder::handshake_timeout), or
    /// until the server has sent bytes and then pauses. An Accio server counts the connection and
    /// stores an `ERROR` file under its number.
    ///
    /// # Errors
    ///
    /// Name resolution or a system call of this machine failed. An address that refuses the
    /// connection is not an error: see [`AddressProbe::result`].
    pub fn probe(&self, host: &str, port: u16) -> Result<Probe, ClientError> {
        let start = Instant::now();
        let addresses =
            self.settings.resolve(host, port, start + self.settings.config.connect_timeout)?;
        let resolved_in = start.elapsed();
        let targets = first_of_each(&addresses);
        let probed = targets.into_iter().map(|address| self.probe_one(address));
        let probed = probed.collect::<Result<_, _>>()?;
        Ok(Probe { addresses, resolved_in, probed })
    }

    fn probe_one(&self, address: SocketAddr) -> Result<AddressProbe, ClientError> {
        let start = Instant::now();
        let result = match race(
            &[address],
            self.settings.config.source_address,
            start + self.settings.config.connect_timeout,
        )? {
            Ok((stream, peer)) => {
                let connected_in = start.elapsed();
                let connection = Connection::new(&self.settings, stream, None, peer, None)?;
                connection.listen(connected_in)
            }
            Err(mut failures) => Err(match failures.pop() {
                Some((_, error)) => error,
                None => io::ErrorKind::TimedOut.into(),
            }),
        };
        Ok(AddressProbe { address, result })
    }
}

impl Connection<'_> {
    /// Receives the first bytes of the server and resets the connection.
    fn listen(mut self, connected_in: Duration) -> io::Result<ServerReply> {
        let start = Instant::now();
        let mut deadline = start + self.settings.config.handshake_timeout;
        let mut spoke_after = None;
        let mut bytes = Vec::new();
        let mut buffer = [0; limits::PROBE_BYTES];
        let ended = loop {
            let room = limits::PROBE_BYTES - bytes.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if room == 0 || left.is_zero() {
                break false;
            }
            match self.receive(&mut buffer[..room]) {
                Ok(Received::Bytes(count)) => {
                    spoke_after.get_or_insert_with(|| start.elapsed());
                    bytes.extend_from_slice(&buffer[..count]);
                    // The pieces of a greeting may arrive as slowly as the timeout allows.
                    if !GREETING.starts_with(&bytes) || bytes.len() == GREETING.len() {
                        deadline = deadline.min(Instant::now() + PROBE_PAUSE);
                    }
                }
                Ok(Received::Nothing) => drop(wait(&self.stream, false, left)?),
                Ok(Received::Fin) => break true,
                Err(_) => break true,
            }
        };
        let ended = ended || is_gone(&self.stream);
        Ok(ServerReply { connected_in, spoke_after, finding: finding(&bytes, ended), bytes })
    }
}

/// Returns the first address of each family, in the given order.
fn first_of_each(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first = |(place, address): &(usize, &SocketAddr)| {
        let family = |other: &SocketAddr| other.is_ipv4() == address.is_ipv4();
        !addresses[..*place].iter().any(family)
    };
    addresses.iter().enumerate().filter(is_first).map(|(_, address)| *address).collect()
}

fn finding(bytes: &[u8], ended: bool) -> Finding {
    match bytes {
        _ if bytes == GREETING && !ended => Finding::Greets,
        _ if !GREETING.starts_with(bytes) => Finding::Foreign,
        _ if ended => Finding::Hangs,
        [] => Finding::Silent,
        _ => Finding::Stops,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_one_address_of_each_family() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 9)).collect()
        };
        for (given, chosen) in [
            (&["::1", "1.1.1.1", "::2", "2.2.2.2"][..], &["::1", "1.1.1.1"][..]),
            (&["1.1.1.1", "2.2.2.2", "::1"], &["1.1.1.1", "::1"]),
            (&["::2", "::1"], &["::2"]),
            (&[], &[]),
        ] {
            assert_eq!(first_of_each(&parse(given)), parse(chosen));
        }
    }
}
