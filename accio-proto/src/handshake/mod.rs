//! The handshakes as sans-IO parsers: they take received bytes and return the bytes to send and the
//! start of the content.
//!
//! The parsers do not allocate, block or use a clock. Pass the received bytes to one, in pieces of
//! any size, until it returns [`Established`](ServerStep::Established). The caller enforces the
//! time limit.

mod client;
mod server;

pub use client::{ClientHandshake, ClientStep};
pub use server::{ServerHandshake, ServerStep};

/// A violation of the handshake, after which the connection must be reset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer sent a byte that the dialect does not allow here: it uses another dialect or another
    /// protocol.
    #[error("expected \"{}\", got \"{}\"", .expected.escape_ascii(), .got.escape_ascii())]
    Mismatch {
        /// The expected line.
        expected: &'static [u8],
        /// The received bytes of this line, up to and including the first wrong one.
        got: Vec<u8>,
    },
    /// The peer closed its side of the connection during the handshake: it gave up, or failed.
    #[error("closed after {matched} of {} bytes of \"{}\"", .expected.len(), .expected.escape_ascii())]
    Closed {
        /// The expected line.
        expected: &'static [u8],
        /// Number of bytes of this line that were received.
        matched: usize,
    },
}

/// Returns how many bytes of `input` continue `line` after its first `matched` bytes.
fn common_prefix(line: &[u8], matched: usize, input: &[u8]) -> usize {
    line[matched..].iter().zip(input).take_while(|(due, got)| due == got).count()
}

/// Returns the error for the byte `wrong` after `matched` correct bytes of `expected`.
fn mismatch(expected: &'static [u8], matched: usize, wrong: u8) -> HandshakeError {
    HandshakeError::Mismatch { expected, got: [&expected[..matched], &[wrong]].concat() }
}
