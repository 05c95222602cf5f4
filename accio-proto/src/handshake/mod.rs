//! The handshakes as sans-IO parsers: bytes in, what to send and what is content out.
//!
//! Neither parser allocates, blocks or knows a clock. Feed each with what was received, in pieces
//! of any size, until it is [`Established`](ServerStep::Established); the time limit is the
//! caller's.

mod client;
mod server;

pub use client::{ClientHandshake, ClientStep};
pub use server::{ServerHandshake, ServerStep};

/// The peer broke the handshake; the connection is worth nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A byte that the dialect does not allow at this place.
    #[error("expected \"{}\", got \"{}\"", .expected.escape_ascii(), .got.escape_ascii())]
    Mismatch {
        /// The line that was due.
        expected: &'static [u8],
        /// The part of it that came, up to and with the first wrong byte.
        got: Vec<u8>,
    },
    /// The peer closed its side within the handshake.
    #[error("closed after {matched} of {} bytes of \"{}\"", .expected.len(), .expected.escape_ascii())]
    Closed {
        /// The line that was due.
        expected: &'static [u8],
        /// How many bytes of it had come.
        matched: usize,
    },
}

/// How many bytes of `input` continue `line` after its first `matched` bytes.
fn common_prefix(line: &[u8], matched: usize, input: &[u8]) -> usize {
    line[matched..].iter().zip(input).take_while(|(due, got)| due == got).count()
}

/// The error for the byte `wrong` after `matched` good bytes of `expected`.
fn mismatch(expected: &'static [u8], matched: usize, wrong: u8) -> HandshakeError {
    HandshakeError::Mismatch { expected, got: [&expected[..matched], &[wrong]].concat() }
}
