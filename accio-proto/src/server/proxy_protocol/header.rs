//! The header itself: where it ends, and what it says.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};

use crate::limits::{PROXY_HEADER_MAX, PROXY_LINE_MAX};
use crate::os_error::reason;

/// The part of a header that has been received.
#[derive(Debug, Default)]
pub(super) struct Header {
    bytes: Vec<u8>,
}

/// The party for which a connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client of the proxy's.
    Client(SocketAddr),
    /// A client without an IP address, or one that the proxy does not name.
    Unknown,
    /// The proxy itself, to check whether the server is alive.
    Proxy,
}

/// The reason why a header is not valid.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum HeaderError {
    #[error("no PROXY header, but \"{}\"", .0.escape_ascii())]
    Missing(Vec<u8>),
    #[error("a malformed PROXY header: \"{}\"", .0.escape_ascii())]
    Malformed(Vec<u8>),
    #[error("a PROXY header of more than {0} bytes")]
    Long(usize),
    #[error("closed after {0} bytes of a PROXY header")]
    Closed(usize),
    #[error("no complete PROXY header in time")]
    Late,
    #[error("lost before its PROXY header was complete: {}", reason(.0))]
    Lost(io::Error),
}

/// The part of a header that is missing.
enum Short {
    /// Nothing.
    Complete,
    /// So many bytes, at least.
    Bytes(usize),
    /// The end of the line is missing; it must follow within this many bytes.
    Line(usize),
}

impl Header {
    /// Returns the number of its bytes that have arrived.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the bytes at the front of `bytes` that belong to the header, and returns their number
    /// and, once the header is complete, the party for which the connection was made.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(usize, Option<Origin>), HeaderError> {
        let mut taken = 0;
        loop {
            let rest = &bytes[taken..];
            let more = match self.short_of()? {
                Short::Complete => return Ok((taken, Some(self.origin()?))),
                _ if rest.is_empty() => return Ok((taken, None)),
                Short::Bytes(count) => count.min(rest.len()),
                Short::Line(most) => {
                    let line = &rest[..most.min(rest.len())];
                    line.iter().position(|byte| *byte == b'\n').map_or(line.len(), |end| end + 1)
                }
            };
            self.bytes.extend_from_slice(&rest[..more]);
            taken += more;
        }
    }

    fn short_of(&self) -> Result<Short, HeaderError> {
        let bytes = &*self.bytes;
        if begins(bytes, TEXT) {
            return match bytes.len() {
                0 => Ok(Short::Bytes(1)),
                some if some < TEXT.len() => Ok(Short::Bytes(TEXT.len() - some)),
                _ if bytes.ends_with(b"\n") => Ok(Short::Complete),
                all if all >= PROXY_LINE_MAX => Err(HeaderError::Long(PROXY_LINE_MAX)),
                some => Ok(Short::Line(PROXY_LINE_MAX - some)),
            };
        }
        if !begins(bytes, BINARY) {
            return Err(HeaderError::Missing(bytes.to_vec()));
        }
        let Some(length) = bytes.get(LENGTH..FIXED) else {
            return Ok(Short::Bytes(FIXED - bytes.len()));
        };
        let all = FIXED + usize::from(length[0]) * 256 + usize::from(length[1]);
        match all.checked_sub(bytes.len()) {
            _ if all > PROXY_HEADER_MAX => Err(HeaderError::Long(PROXY_HEADER_MAX)),
            None | Some(0) => Ok(Short::Complete),
            Some(more) => Ok(Short::Bytes(more)),
        }
    }

    /// Returns the party named by the complete header.
    fn origin(&self) -> Result<Origin, HeaderError> {
        let malformed = || HeaderError::Malformed(self.bytes.clone());
        let is_binary = self.bytes.starts_with(BINARY);
        // Addresses in such a header must be ignored.
        if is_binary && self.bytes[COMMAND] == LOCAL {
            return Ok(Origin::Proxy);
        }
        match parse(&self.bytes).map_err(|()| malformed())? {
            // The parser accepts more than the protocol, such as numbers with a sign.
            Some(_) if !is_binary && !self.bytes.iter().all(|byte| is_in_line(*byte)) => {
                Err(malformed())
            }
            Some(peer) => Ok(Origin::Client(peer)),
            None => Ok(Origin::Unknown),
        }
    }
}

/// Beginning of a header of version 1.
const TEXT: &[u8] = b"PROXY ";

/// Beginning of a header of version 2; followed by command, family and length.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const COMMAND: usize = 12;
const LENGTH: usize = 14;
const FIXED: usize = 16;

/// Version 2 with the command of a connection on the proxy's own behalf.
const LOCAL: u8 = 0x20;

/// Returns whether the bytes are a part of the beginning, or start with it.
fn begins(bytes: &[u8], beginning: &[u8]) -> bool {
    let common = bytes.len().min(beginning.len());
    bytes[..common] == beginning[..common]
}

/// Returns whether a byte may occur in a header of version 1 with addresses.
fn is_in_line(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" .:\r\n".contains(&byte)
}

/// Returns the source address of a complete header for TCP, if it contains one; an error if the
/// header is invalid.
fn parse(header: &[u8]) -> Result<Option<SocketAddr>, ()> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(drop)?;
    match parsed.proxied_address() {
        _ if length != header.len() => Err(()),
        None => Ok(None),
        Some(addresses) if addresses.protocol == Protocol::Stream => Ok(Some(addresses.source)),
        Some(_) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proxy_header::{ProxiedAddress, Tlv};

    use super::*;

    /// Feeds a header and the bytes after it in pieces of these sizes; returns the origin and the
    /// number of bytes taken.
    fn feed(bytes: &[u8], sizes: &[usize]) -> Result<Option<(Origin, usize)>, HeaderError> {
        let mut header = Header::default();
        let mut sizes = sizes.iter().copied().chain(std::iter::repeat(usize::MAX));
        let mut taken = 0;
        while taken < bytes.len() {
            let size = sizes.next().unwrap().min(bytes.len() - taken);
            let (more, origin) = header.receive(&bytes[taken..taken + size])?;
            taken += more;
            match origin {
                Some(origin) => return Ok(Some((origin, taken))),
                None => assert_eq!(more, size, "all of it belongs to the header"),
            }
        }
        Ok(None)
    }

    fn text(line: &str) -> Result<Option<Origin>, HeaderError> {
        let origin = feed(line.as_bytes(), &[])?;
        if let Some((_, taken)) = origin {
            assert_eq!(taken, line.len());
        }
        Ok(origin.map(|(origin, _)| origin))
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [BINARY, &[command, family], &length, rest].concat()
    }

    fn client(address: &str) -> Origin {
        Origin::Client(address.parse().unwrap())
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];

    #[test]
    fn parses_lines_of_version_1() {
        for (line, origin) in [
            ("PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n", client("192.0.2.7:12345")),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n",
                client("255.255.255.255:65535"),
            ),
            ("PROXY TCP6 2001:db8::7 ::1 12345 80\r\n", client("[2001:db8::7]:12345")),
            ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 80\r\n", client("[::ffff:192.0.2.7]:1")),
            ("PROXY UNKNOWN\r\n", Origin::Unknown),
            ("PROXY UNKNOWN ffff:f...f:ffff whatever / it says 65535\r\n", Origin::Unknown),
        ] {
            assert_eq!(text(line).unwrap(), Some(origin), "{line:?}");
        }
    }

    #[test]
    fn rejects_invalid_lines_of_version_1() {
        for line in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 12345 80 \r\n",
            "PROXY TCP4 192.0.2.7  10.0.0.1 12345 80\r\n",
            "PROXY TCP4 192.0.2.777 10.0.0.1 12345 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +1 80\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 -1 80\r\n",
            "PROXY TCP4 ::1 ::1 1 80\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 1 80\r\n",
            "PROXY TCP5 192.0.2.7 10.0.0.1 1 80\r\n",
            "PROXY tcp4 192.0.2.7 10.0.0.1 1 80\r\n",
            "PROXY \r\n",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOW\r\n",
        ] {
            let error = text(line).unwrap_err();
            assert!(matches!(error, HeaderError::Malformed(_)), "{line:?}: {error}");
        }
        for line in
            ["accio\r\n", "PROXY\r\n", "proxy TCP4", "GET / HTTP/1.1\r\n", "\r\n\r\nx", "\0"]
        {
            let error = text(line).unwrap_err();
            assert!(matches!(error, HeaderError::Missing(_)), "{line:?}: {error}");
        }
        let error = text("PROXY\x1b[2J").unwrap_err().to_string();
        assert_eq!(error, "no PROXY header, but \"PROXY\\x1b\"", "control characters are escaped");
    }

    #[test]
    fn limits_the_length_of_a_line() {
        let room = PROXY_LINE_MAX - "PROXY UNKNOWN \r\n".len();
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length));
        assert_eq!(text(&line(room)).unwrap(), Some(Origin::Unknown));
        for line in [line(room + 1), line(room + 2), line(10_000)] {
            assert!(matches!(text(&line), Err(HeaderError::Long(PROXY_LINE_MAX))), "{line:?}");
        }
        assert_eq!(text("PROXY UNKNOWN xxx").unwrap(), None, "the line is not too long yet");
    }

    #[test]
    fn parses_headers_of_version_2() {
        let v6 =
            [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 15], &[1], &[0, 9, 0, 80]].concat();
        let with_tlvs = [&V4[..], &[4, 0, 2, 0, 0, 0xee, 0, 3, 1, 2, 3]].concat();
        for (bytes, origin) in [
            (binary(0x21, 0x11, &V4), client("192.0.2.7:12345")),
            (binary(0x21, 0x11, &with_tlvs), client("192.0.2.7:12345")),
            (binary(0x21, 0x21, &v6), client("[2001:db8::7]:9")),
            (binary(0x21, 0x00, &[]), Origin::Unknown),
            (binary(0x21, 0x00, &[1, 2, 3]), Origin::Unknown),
            (binary(0x21, 0x31, &[b'/'; 216]), Origin::Unknown),
            (binary(0x20, 0x00, &[]), Origin::Proxy),
            // In a header on the proxy's own behalf, everything else must be ignored.
            (binary(0x20, 0x11, &V4), Origin::Proxy),
            (binary(0x20, 0x77, &[9; 300]), Origin::Proxy),
        ] {
            assert_eq!(feed(&bytes, &[]).unwrap(), Some((origin, bytes.len())), "{bytes:?}");
        }
    }

    #[test]
    fn rejects_invalid_headers_of_version_2() {
        for bytes in [
            binary(0x11, 0x11, &V4),
            binary(0x22, 0x11, &V4),
            binary(0x21, 0x11, &V4[..11]),
            binary(0x21, 0x21, &V4),
            binary(0x21, 0x12, &V4),
            binary(0x21, 0x41, &V4),
            binary(0x21, 0x13, &V4),
            binary(0x21, 0x31, &[b'/'; 215]),
        ] {
            let error = feed(&bytes, &[]).unwrap_err();
            assert!(matches!(error, HeaderError::Malformed(_)), "{bytes:?}: {error}");
        }
        let fits = binary(0x20, 0, &[0; PROXY_HEADER_MAX - FIXED]);
        assert_eq!(feed(&fits, &[]).unwrap(), Some((Origin::Proxy, PROXY_HEADER_MAX)));
        // The header is refused because of its announced length, before it arrives.
        let long = &binary(0x20, 0, &[0; PROXY_HEADER_MAX - FIXED + 1])[..FIXED];
        assert!(matches!(feed(long, &[]), Err(HeaderError::Long(PROXY_HEADER_MAX))));
    }

    fn addresses() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = (any::<Ipv4Addr>(), any::<u16>()).prop_map(SocketAddr::from);
        let v6 = (any::<Ipv6Addr>(), any::<u16>()).prop_map(SocketAddr::from);
        prop_oneof![(v4.clone(), v4), (v6.clone(), v6)]
    }

    proptest! {
        /// For any division into pieces, the header yields the same address, and no byte after it
        /// is taken.
        #[test]
        fn any_chunking_yields_the_same_address(
            (from, to) in addresses(),
            version_2: bool,
            extra in vec(any::<u8>(), 0..300),
            content in vec(any::<u8>(), 0..50),
            sizes in vec(1..40usize, 0..200),
        ) {
            let mut bytes = Vec::new();
            let addresses = ProxiedAddress::stream(from, to);
            if version_2 {
                let tlvs = [Tlv::Custom(0xee, extra.into())];
                ProxyHeader::with_tlvs(Some(addresses), tlvs).encode_v2(&mut bytes).unwrap();
            } else {
                ProxyHeader::with_address(addresses).encode_v1(&mut bytes).unwrap();
            }
            let length = bytes.len();
            bytes.extend(content);
            prop_assert_eq!(feed(&bytes, &sizes).unwrap(), Some((Origin::Client(from), length)));
            prop_assert_eq!(feed(&bytes[..length - 1], &sizes).unwrap(), None);
        }

        /// Arbitrary bytes cause no panic and use no more memory than the longest header.
        #[test]
        fn arbitrary_bytes_cause_no_panic(
            start in prop_oneof![Just(TEXT), Just(BINARY), Just(&b"PROXY TCP4 "[..]), Just(&b""[..])],
            bytes in vec(any::<u8>(), 0..6000),
            sizes in vec(1..2000usize, 0..20),
        ) {
            let bytes = [start, &bytes].concat();
            let whole = feed(&bytes, &[]).map_err(|error| error.to_string());
            let pieces = feed(&bytes, &sizes).map_err(|error| error.to_string());
            prop_assert_eq!(whole.is_err(), pieces.is_err());
            if let (Ok(whole), Ok(pieces)) = (&whole, &pieces) {
                prop_assert_eq!(whole, pieces);
            }
            if let Ok(Some((_, taken))) = whole {
                prop_assert!(taken <= PROXY_HEADER_MAX);
            }
        }
    }
}
