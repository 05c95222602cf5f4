//! The required result of a connection, computed from all of its bytes at once. It shares no code
//! with the library: the constants of the protocol are repeated here.

use accio_proto::handshake::HandshakeError;
use accio_proto::{Dialect, ServerDialect};

const GREETING: &[u8] = b"accio\r\n";
const FIRST: &[u8] = b"confirm-accio\r\n";
const SECOND: &[u8] = b"confirm-accio-again\r\n\r\n";

/// Returns the required result for `wire`, the bytes of the client, followed by FIN.
pub(crate) struct Expected<'a> {
    pub(crate) established: Result<(Dialect, &'a [u8]), HandshakeError>,
    /// The greetings that the server sends. A client that violates the handshake is reset, so
    /// whether it receives the second greeting depends on the chunking; these are then the maximum.
    pub(crate) sent: Vec<u8>,
    /// The minimum number of these bytes. An `auto` server sends no second greeting if one read
    /// contains the first confirmation and continues differently from the second.
    least: usize,
}

impl Expected<'_> {
    /// Returns whether the client may receive exactly these greetings, for some chunking.
    pub(crate) fn allows(&self, sent: &[u8]) -> bool {
        self.sent.starts_with(sent)
            && sent.len() >= self.least
            && sent.len().is_multiple_of(GREETING.len())
    }
}

pub(crate) fn expect(server: ServerDialect, wire: &[u8]) -> Expected<'_> {
    let after_both = wire.strip_prefix(FIRST).and_then(|rest| rest.strip_prefix(SECOND));
    let greetings = match server {
        ServerDialect::Only(Dialect::Direct) => 0,
        ServerDialect::Only(Dialect::Accio) => 1,
        _ if wire.starts_with(FIRST) => 2,
        _ => 1,
    };
    let established = match (server, after_both) {
        (ServerDialect::Only(Dialect::Confirm) | ServerDialect::Auto, Some(content)) => {
            Ok((Dialect::Confirm, content))
        }
        (ServerDialect::Auto, None) => Ok((Dialect::Accio, wire)),
        (ServerDialect::Only(Dialect::Confirm), None) if !wire.is_empty() => {
            Err(broken(wire).expect("neither both lines nor nothing"))
        }
        (ServerDialect::Only(dialect), _) => Ok((dialect, wire)),
    };
    let goes_on_differently = wire
        .strip_prefix(FIRST)
        .is_some_and(|rest| !rest.starts_with(SECOND) && !SECOND.starts_with(rest));
    let least = match server {
        ServerDialect::Auto if goes_on_differently => 1,
        _ => greetings,
    };
    let (sent, least) = (GREETING.repeat(greetings), GREETING.len() * least);
    Expected { established, sent, least }
}

/// Returns how `wire`, followed by FIN, violates the handshake of a server that only accepts
/// `confirm`.
pub(crate) fn broken(wire: &[u8]) -> Option<HandshakeError> {
    let (expected, rest): (&'static [u8], _) = match wire.strip_prefix(FIRST) {
        Some(rest) => (SECOND, rest),
        None => (FIRST, wire),
    };
    let wrong = rest.iter().zip(expected).position(|(got, due)| got != due);
    match wrong {
        Some(at) => Some(HandshakeError::Mismatch { expected, got: rest[..=at].to_vec() }),
        None if wire.is_empty() || rest.len() >= expected.len() => None,
        None => Some(HandshakeError::Closed { expected, matched: rest.len() }),
    }
}

/// Returns the digest of the content, computed in one call.
#[cfg(feature = "digest")]
#[allow(dead_code, reason = "the tests of the handshake do not need it")]
pub(crate) fn digest(
    algorithm: accio_proto::DigestAlgorithm,
    content: &[u8],
) -> accio_proto::Digest {
    let mut hasher = accio_proto::Hasher::new(algorithm);
    hasher.update(content);
    hasher.finish()
}
