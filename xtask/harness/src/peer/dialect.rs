//! The dialects and their bytes on the wire.

/// The server's greeting.
pub const GREETING: &[u8] = b"accio\r\n";
/// A `confirm` client's answer to the first greeting.
pub const FIRST: &[u8] = b"confirm-accio\r\n";
/// A `confirm` client's answer to the second greeting.
pub const SECOND: &[u8] = b"confirm-accio-again\r\n\r\n";

/// A variant of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// No handshake.
    Direct,
    /// The server sends a greeting.
    Accio,
    /// The server sends two greetings, and the client confirms each.
    Confirm,
}

impl Dialect {
    /// All dialects.
    pub const ALL: [Dialect; 3] = [Dialect::Direct, Dialect::Accio, Dialect::Confirm];

    /// Returns its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Direct => "direct",
            Dialect::Accio => "accio",
            Dialect::Confirm => "confirm",
        }
    }

    /// Returns all bytes that the server sends.
    pub fn greetings(self) -> &'static [u8] {
        match self {
            Dialect::Direct => b"",
            Dialect::Accio => GREETING,
            Dialect::Confirm => b"accio\r\naccio\r\n",
        }
    }

    /// Returns all bytes that the client sends before the content.
    pub fn confirmations(self) -> &'static [u8] {
        match self {
            Dialect::Direct | Dialect::Accio => b"",
            Dialect::Confirm => b"confirm-accio\r\nconfirm-accio-again\r\n\r\n",
        }
    }
}
