//! Parses the HTTP/1.1 requests that receivers send.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

/// Maximum length of a line, and of a body that is parsed, in bytes.
pub(super) const LONGEST: u64 = 64 << 10;

/// The header of the marker that receivers store next to their objects.
pub(super) const NOTE: &str = "x-amz-meta-accio";

#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// `/BUCKET/KEY`.
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) length: u64,
    /// Whether the request must fail if the object exists.
    pub(super) if_absent: bool,
    pub(super) note: Option<String>,
}

impl Request {
    /// Reads the head of the next request, or `None` at the end of the connection.
    pub(super) fn read(input: &mut impl BufRead) -> io::Result<Option<Request>> {
        let Some(first) = line(input)? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(invalid("not an HTTP request"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        let mut request = Request {
            method: method.to_owned(),
            path: decoded(path),
            query: pairs.map(pair).collect(),
            length: 0,
            if_absent: false,
            note: None,
        };
        while let Some(header) = line(input)?.filter(|line| !line.is_empty()) {
            let Some((name, value)) = header.split_once(':') else { continue };
            let value = value.trim();
            match &*name.to_ascii_lowercase() {
                "content-length" => request.length = value.parse().map_err(io::Error::other)?,
                "transfer-encoding" => return Err(invalid("a body of unknown length")),
                "if-none-match" => request.if_absent = value == "*",
                NOTE => request.note = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(Some(request))
    }

    pub(super) fn is(&self, method: &str, query: &str) -> bool {
        self.method == method && self.query.contains_key(query)
    }

    pub(super) fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

/// Reads a line and returns it without its end, or `None` at the end of the connection.
pub(super) fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let count = input.take(LONGEST).read_until(b'\n', &mut bytes)?;
    if count == 0 {
        return Ok(None);
    }
    let line =
        bytes.strip_suffix(b"\n").ok_or_else(|| invalid("a line is incomplete or too long"))?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8(line.to_vec()).map(Some).map_err(io::Error::other)
}

/// Decodes percent-encoded bytes.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = if *first == b'%' { tail.get(..2) } else { None };
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
