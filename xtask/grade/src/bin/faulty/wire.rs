//! What goes over the wire.

/// What a server says first.
pub(crate) const GREETING: &[u8] = b"accio\r\n";
/// What the first greeting is answered with, and the second.
pub(crate) const CONFIRMATIONS: [&[u8]; 2] = [b"confirm-accio\r\n", b"confirm-accio-again\r\n\r\n"];
