//! The dialects and their bytes on the wire.

/// The server's greeting.
pub const GREETING: &[u8] = b"accio\r\n";
/// A `confirm` client's answer to the first greeting.
pub const FIRST: &[u8] = b"confirm-accio\r\n";
/// A `confirm` client's answer to the second greeting.
pub const SECOND: &[u8] = b"confirm-accio-again\r\n\r\n";

/// How a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// No handshake.
    Direct,
    /// The server greets.
    Accio,
    /// Two greetings, each confirmed.
    Confirm,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 3] = [Dialect::Direct, Dialect::Accio, Dialect::Confirm];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Direct => "direct",
            Dialect::Accio => "accio",
            Dialect::Confirm => "confirm",
        }
    }

    /// Returns all that the server sends.
    pub fn greetings(self) -> &'static [u8] {
        match self {
            Dialect::Direct => b"",
            Dialect::Accio => GREETING,
            Dialect::Confirm => b"accio\r\naccio\r\n",
        }
    }

    /// Returns all that the client sends before the content.
    pub fn confirmations(self) -> &'static [u8] {
        match self {
            Dialect::Direct | Dialect::Accio => b"",
            Dialect::Confirm => b"confirm-accio\r\nconfirm-accio-again\r\n\r\n",
        }
    }
}
