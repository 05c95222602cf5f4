//! The dialects, and what goes over the wire in each.

/// What a server sends first.
pub const GREETING: &[u8] = b"accio\r\n";
/// What a `confirm` client answers to the first greeting.
pub const FIRST: &[u8] = b"confirm-accio\r\n";
/// What a `confirm` client answers to the second greeting.
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

    /// What the server sends, in all.
    pub fn greetings(self) -> &'static [u8] {
        match self {
            Dialect::Direct => b"",
            Dialect::Accio => GREETING,
            Dialect::Confirm => b"accio\r\naccio\r\n",
        }
    }

    /// What the client sends before the content, in all.
    pub fn confirmations(self) -> &'static [u8] {
        match self {
            Dialect::Direct | Dialect::Accio => b"",
            Dialect::Confirm => b"confirm-accio\r\nconfirm-accio-again\r\n\r\n",
        }
    }
}
