//! The bytes of the handshake.

/// The server's greeting.
pub(crate) const GREETING: &[u8] = b"accio\r\n";
/// The client's answers to the first and the second greeting.
pub(crate) const CONFIRMATIONS: [&[u8]; 2] = [b"confirm-accio\r\n", b"confirm-accio-again\r\n\r\n"];
