//! Port numbers and service names.

use std::fmt;
use std::fs;
use std::num::NonZeroU16;
use std::str::FromStr;

/// A TCP port from 1 to 65535. It can be parsed from its number or its service name.
///
/// ```
/// use accio_proto::Port;
///
/// assert_eq!("5000".parse::<Port>()?.number(), 5000);
/// assert_eq!("http".parse::<Port>()?.number(), 80);
/// assert!("0".parse::<Port>().is_err());
/// # Ok::<(), accio_proto::InvalidPort>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(NonZeroU16);

/// A string that is not a valid port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("port {value:?} {why}; use a number from 1 to 65535 or a service name such as http")]
pub struct InvalidPort {
    value: String,
    why: &'static str,
}

impl Port {
    /// Returns the port with this number, unless it is 0.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Port(number)),
            None => None,
        }
    }

    /// Returns the number.
    pub const fn number(self) -> u16 {
        self.0.get()
    }
}

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(value: &str) -> Result<Self, InvalidPort> {
        let invalid = |why| InvalidPort { value: value.to_owned(), why };
        if value.is_empty() {
            return Err(invalid("is empty"));
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        if digits(value) {
            let number = value.parse().map_err(|_| invalid("is above 65535"))?;
            return Port::new(number).ok_or_else(|| invalid("is below 1"));
        }
        if value.strip_prefix('-').is_some_and(digits) {
            return Err(invalid("is below 1"));
        }
        let services = fs::read(SERVICES).unwrap_or_default();
        listed(&String::from_utf8_lossy(&services), value)
            .or_else(|| common(value))
            .and_then(Port::new)
            .ok_or_else(|| invalid("is not a known TCP service"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> u16 {
        port.number()
    }
}

/// File with the service names of the system.
const SERVICES: &str = "/etc/services";

/// Names that are known even in a container without [`SERVICES`].
const COMMON: &[(&str, u16)] = &[
    ("echo", 7),
    ("discard", 9),
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("http", 80),
    ("pop3", 110),
    ("imap", 143),
    ("imap2", 143),
    ("snmp", 161),
    ("ldap", 389),
    ("https", 443),
    ("submission", 587),
    ("ldaps", 636),
    ("imaps", 993),
    ("pop3s", 995),
    ("http-alt", 8080),
];

fn common(name: &str) -> Option<u16> {
    COMMON.iter().find(|(known, _)| *known == name).map(|(_, port)| *port)
}

/// Returns the TCP port of `name` in the text of a services file: `name port/protocol alias... #
/// comment`.
fn listed(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let official = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let named = official == name || words.any(|alias| alias == name);
        (named && protocol == "tcp").then(|| port.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_numbers_and_service_names() {
        for (text, number) in [("1", 1), ("80", 80), ("65535", 65535), ("http", 80), ("ssh", 22)] {
            assert_eq!(text.parse::<Port>().map(u16::from), Ok(number), "{text}");
            assert_eq!(Port::new(number).map(|port| port.to_string()), Some(number.to_string()));
        }
        assert_eq!(Port::new(0), None);
    }

    #[test]
    fn rejects_invalid_ports_with_advice() {
        for (text, why) in [
            ("0", "is below 1"),
            ("-1", "is below 1"),
            ("65536", "is above 65535"),
            ("99999999999", "is above 65535"),
            ("", "is empty"),
            ("abc", "is not a known TCP service"),
            ("+5", "is not a known TCP service"),
            ("0x50", "is not a known TCP service"),
            (" 80", "is not a known TCP service"),
            ("80 ", "is not a known TCP service"),
            ("8.0", "is not a known TCP service"),
            ("٨٠", "is not a known TCP service"),
        ] {
            let error = text.parse::<Port>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("port {text:?} {why}; use ")), "{error}");
        }
        let error = "a\x1b\nb".parse::<Port>().unwrap_err().to_string();
        assert!(!error.contains(['\x1b', '\n']), "escaped: {error}");
    }

    #[test]
    fn parses_a_services_file_like_the_system() {
        let text = "# comment http 1/tcp\n\nodd\nodd 5\nhttp 81/udp\nhttp\t\t82/tcp www # web\n\
                    bad x/tcp\nbig 70000/tcp\nzero 0/tcp\n";
        assert_eq!(listed(text, "http"), Some(82));
        assert_eq!(listed(text, "www"), Some(82));
        for name in ["web", "odd", "bad", "big", "#", "comment", "82/tcp", "tcp"] {
            assert_eq!(listed(text, name), None, "{name}");
        }
        assert_eq!(listed(text, "zero").and_then(Port::new), None);
        assert_eq!(listed("", "http").or_else(|| common("http")), Some(80));
    }
}
