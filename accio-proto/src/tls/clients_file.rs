//! The list of clients that may connect: a pin and a name per line.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use super::Pin;

/// The clients that may connect, identified by their public keys.
///
/// The text has a pin and a name per line, such as `sha256//47DE…= alice`; empty lines and lines
/// that begin with `#` are ignored. A name may have several keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownClients(HashMap<Pin, Arc<str>>);

/// An invalid line in a list of clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct InvalidClients {
    line: usize,
    why: String,
}

/// Maximum length of a client's name in bytes.
const NAME_MAX: usize = 128;

impl KnownClients {
    /// Returns the name of the client with this key.
    pub fn name(&self, pin: &Pin) -> Option<&Arc<str>> {
        self.0.get(pin)
    }

    /// Returns the number of listed keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no key is listed, so that no client may connect.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for KnownClients {
    type Err = InvalidClients;

    fn from_str(text: &str) -> Result<Self, InvalidClients> {
        let mut clients = KnownClients::default();
        for (line, entry) in (1..).zip(text.lines()) {
            let entry = entry.trim();
            if entry.is_empty() || entry.starts_with('#') {
                continue;
            }
            let invalid = |why: String| InvalidClients { line, why };
            let (pin, name) = entry
                .split_once([' ', '\t'])
                .ok_or_else(|| invalid(format!("a pin without a name: {entry:?}")))?;
            let pin: Pin = pin.parse().map_err(|why| invalid(format!("{why}")))?;
            let name = name.trim_start();
            if name.len() > NAME_MAX || name.chars().any(char::is_control) {
                return Err(invalid(format!(
                    "name {name:?}: longer than {NAME_MAX} bytes, or with control characters"
                )));
            }
            if let Some(other) = clients.0.insert(pin, Arc::from(name))
                && *other != *name
            {
                return Err(invalid(format!("{pin} is listed as {other:?} already")));
            }
        }
        Ok(clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn pin() -> Pin {
        ALICE.parse().unwrap()
    }

    #[test]
    fn parses_a_pin_and_a_name_per_line() {
        let text = format!("# the office\n\n  {ALICE}\t alice in the office  \n");
        let clients: KnownClients = text.parse().unwrap();
        assert_eq!(clients.name(&pin()).map(|name| &**name), Some("alice in the office"));
        assert_eq!(clients.name(&Pin::of_key(b"other")), None);
        assert_eq!(clients.len(), 1);
        assert!("".parse::<KnownClients>().unwrap().is_empty());
        let twice = format!("{ALICE} alice\n{ALICE} alice\r\n");
        assert_eq!(twice.parse::<KnownClients>().unwrap().len(), 1);
    }

    #[test]
    fn reports_the_line_of_an_invalid_entry() {
        for (bad, line, why) in [
            (ALICE.to_owned(), 1, "a pin without a name"),
            (format!("\n{ALICE} a\nsha256//x bob"), 3, "not sha256//"),
            ("alice sha256//47DE".to_owned(), 1, "not sha256//"),
            (format!("{ALICE} a\x07b"), 1, "control characters"),
            (format!("{ALICE} {}", "n".repeat(129)), 1, "longer than 128 bytes"),
            (format!("{ALICE} alice\n{ALICE} bob"), 2, "is listed as \"alice\" already"),
            ("\u{0}\u{fffd}\u{1b}[2J".to_owned(), 1, "a pin without a name"),
        ] {
            let error = bad.parse::<KnownClients>().unwrap_err();
            assert_eq!(error.line, line, "{error}");
            let text = error.to_string();
            assert!(text.contains(why) && !text.contains(char::is_control), "{text}");
        }
    }
}
