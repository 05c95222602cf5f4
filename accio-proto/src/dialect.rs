//! The dialects of the protocol, and the bytes exchanged before a file.

use std::fmt;
use std::str::FromStr;

/// First bytes of the server, in every dialect but [`Dialect::Direct`].
pub const GREETING: &[u8] = b"accio\r\n";

/// Reply of a [`Dialect::Confirm`] client to the first greeting.
pub const FIRST_CONFIRMATION: &[u8] = b"confirm-accio\r\n";

/// Reply of a [`Dialect::Confirm`] client to the second greeting.
pub const SECOND_CONFIRMATION: &[u8] = b"confirm-accio-again\r\n\r\n";

/// Both confirmations in a row.
pub(crate) const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";

/// Handshake of a connection. The bytes after the handshake are the same in every dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// No handshake: the first byte is content.
    Direct,
    /// The server sends a greeting, then the client sends the content.
    #[default]
    Accio,
    /// The server sends two greetings, and the client confirms each.
    Confirm,
}

/// Dialects that a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ServerDialect {
    /// Sends a greeting, then detects for each client whether it speaks [`Dialect::Accio`] or
    /// [`Dialect::Confirm`].
    ///
    /// Every byte of every file is content, with one exception: a file that begins with both
    /// confirmations in a row loses them. One kind of `accio` client can fail: its file begins with
    /// the 15 bytes of the first confirmation, the server reads exactly those at first (the client
    /// pauses there, or the file ends there), and the client closes without reading what it was
    /// sent. It looks like a `confirm` client until then and gets a second greeting, and closing a
    /// connection with unread bytes resets it: the file is [`ERROR_MARKER`](crate::ERROR_MARKER).
    /// `Only(Dialect::Accio)` takes those files too.
    #[default]
    Auto,
    /// Accepts one dialect.
    Only(Dialect),
}

impl Dialect {
    /// All dialects, in the order in which the courses introduced them.
    pub const ALL: [Dialect; 3] = [Dialect::Direct, Dialect::Accio, Dialect::Confirm];

    /// Returns the name for command lines: `direct`, `accio` or `confirm`.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Direct => "direct",
            Dialect::Accio => "accio",
            Dialect::Confirm => "confirm",
        }
    }
}

impl ServerDialect {
    /// Returns the name for command lines: `auto` or the name of the only dialect.
    pub const fn name(self) -> &'static str {
        match self {
            ServerDialect::Auto => "auto",
            ServerDialect::Only(dialect) => dialect.name(),
        }
    }
}

/// A string that is not the name of a dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown dialect {value:?}: use {expected}")]
pub struct UnknownDialect {
    value: String,
    expected: &'static str,
}

impl FromStr for Dialect {
    type Err = UnknownDialect;

    fn from_str(value: &str) -> Result<Self, UnknownDialect> {
        Dialect::ALL.into_iter().find(|dialect| dialect.name() == value).ok_or_else(|| {
            UnknownDialect {
                value: value.to_owned(),
                expected: if value == "auto" {
                    "accio, confirm or direct (auto is for servers, which detect the client's dialect)"
                } else {
                    "accio, confirm or direct"
                },
            }
        })
    }
}

impl FromStr for ServerDialect {
    type Err = UnknownDialect;

    fn from_str(value: &str) -> Result<Self, UnknownDialect> {
        if value == ServerDialect::Auto.name() {
            return Ok(ServerDialect::Auto);
        }
        value.parse().map(ServerDialect::Only).map_err(|_| UnknownDialect {
            value: value.to_owned(),
            expected: "auto, accio, confirm or direct",
        })
    }
}

impl From<Dialect> for ServerDialect {
    fn from(dialect: Dialect) -> Self {
        ServerDialect::Only(dialect)
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for ServerDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
            assert_eq!(dialect.name().parse(), Ok(ServerDialect::Only(dialect)));
        }
        assert_eq!("auto".parse(), Ok(ServerDialect::Auto));
    }

    #[test]
    fn reports_an_unknown_name_with_the_valid_ones() {
        let error = "Accio".parse::<Dialect>().unwrap_err().to_string();
        assert_eq!(error, "unknown dialect \"Accio\": use accio, confirm or direct");
        let error = "auto".parse::<Dialect>().unwrap_err().to_string();
        assert!(error.contains("auto is for servers"), "{error}");
        assert!("".parse::<ServerDialect>().is_err());
    }

    #[test]
    fn constants_have_the_documented_lengths() {
        assert_eq!(
            (GREETING.len(), FIRST_CONFIRMATION.len(), SECOND_CONFIRMATION.len()),
            (7, 15, 23)
        );
        assert_eq!(CONFIRMATIONS, [FIRST_CONFIRMATION, SECOND_CONFIRMATION].concat());
    }
}
