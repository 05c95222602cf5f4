//! The content of the status page, read from a server when the page is requested.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use accio_proto::{ConnectionStatus, Dialect, ServerHandle, ServerLimits, Stats};
use jiff::Timestamp;
use serde::Serialize;

use super::history::{History, Record};
use super::text::clip_to;
use crate::peer_text;

/// Maximum number of uploads in the list, which has those with the lowest numbers.
pub(super) const LISTED: usize = 100;

/// Maximum length of a client's name in characters.
const LONGEST_NAME: usize = 64;

/// The state of the server. The field names are those of `/status.json`, which scripts rely on.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) time: String,
    pub(super) started: String,
    /// In seconds.
    pub(super) uptime: f64,
    pub(super) version: &'static str,
    pub(super) listening: Vec<String>,
    pub(super) filter: Option<String>,
    pub(super) limits: Limits,
    pub(super) totals: Totals,
    pub(super) uploads: Vec<Upload>,
    /// Number of uploads that match the filter but are not listed.
    pub(super) more_uploads: u64,
    /// The recent outcomes, latest first.
    pub(super) outcomes: Vec<Ended>,
}

/// The limits; `None` for unlimited. Times are in seconds, sizes in bytes.
#[derive(Debug, Serialize)]
pub(super) struct Limits {
    pub(super) handshake: String,
    pub(super) timeout: f64,
    pub(super) max_connections: usize,
    pub(super) max_per_ip: Option<u32>,
    pub(super) max_new_per_ip: Option<u32>,
    pub(super) max_size: Option<u64>,
    pub(super) max_duration: Option<f64>,
    pub(super) min_rate: Option<u64>,
}

/// Counts since the start.
#[derive(Debug, Serialize)]
pub(super) struct Totals {
    pub(super) accepted: u64,
    pub(super) in_service: u64,
    pub(super) complete: u64,
    pub(super) error: u64,
    pub(super) refused: u64,
    pub(super) accept_errors: u64,
    /// Bytes of content in complete files.
    pub(super) bytes: u64,
}

/// A connection in service.
#[derive(Debug, Serialize)]
pub(super) struct Upload {
    pub(super) id: u64,
    pub(super) peer: Option<String>,
    pub(super) identity: Option<String>,
    pub(super) dialect: Option<&'static str>,
    pub(super) phase: &'static str,
    pub(super) bytes: u64,
    /// Average rate in bytes per second.
    pub(super) rate: f64,
    /// In seconds.
    pub(super) age: f64,
    /// Seconds since the last byte.
    pub(super) idle: f64,
}

/// A finished connection. Fields that also exist in the journal have the same names.
#[derive(Debug, Serialize)]
pub(super) struct Ended {
    pub(super) time: String,
    pub(super) id: Option<u64>,
    pub(super) peer: Option<String>,
    pub(super) identity: Option<String>,
    pub(super) dialect: Option<&'static str>,
    pub(super) bytes: u64,
    pub(super) digest: Option<String>,
    /// In seconds.
    pub(super) duration: f64,
    pub(super) outcome: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) error: Option<String>,
    pub(super) explanation: Option<String>,
    pub(super) expected: Option<String>,
    pub(super) received: Option<String>,
    pub(super) unmarked: Option<String>,
    pub(super) note: Option<String>,
}

/// Properties that do not change while the server runs.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) started: Timestamp,
    pub(super) listening: Vec<SocketAddr>,
    pub(super) handle: ServerHandle,
}

impl Report {
    /// Reads the state of a server, with the connections that match the filter, if there is one.
    pub(super) fn read(subject: &Subject, history: &History, filter: Option<&Filter>) -> Report {
        let now = Timestamp::now();
        // Read the connections before the history, and the totals last, so that a connection that
        // ends in between is in the history and in the totals.
        let (mut uploads, more_uploads) = uploads(subject.handle.connections(), filter);
        let records = history.latest();
        let ended: HashSet<_> = records.iter().filter_map(|record| record.id).collect();
        uploads.retain(|upload| !ended.contains(&upload.id));
        let outcomes: Vec<_> =
            records.iter().map(|record| Ended::new(record)).filter(|e| e.matches(filter)).collect();
        let stats = subject.handle.stats();
        Report {
            time: format!("{now:.3}"),
            started: format!("{:.3}", subject.started),
            uptime: rounded(now.duration_since(subject.started).unsigned_abs()),
            version: env!("CARGO_PKG_VERSION"),
            listening: subject.listening.iter().map(ToString::to_string).collect(),
            filter: filter.map(|filter| filter.0.clone()),
            limits: Limits::new(subject.handle.limits()),
            totals: Totals::new(stats),
            uploads,
            more_uploads,
            outcomes,
        }
    }
}

/// Returns the connections with the lowest numbers, and the number of further ones.
fn uploads(
    connections: impl Iterator<Item = ConnectionStatus>,
    filter: Option<&Filter>,
) -> (Vec<Upload>, u64) {
    let mut first: BTreeMap<u64, Upload> = BTreeMap::new();
    let mut more = 0;
    for connection in connections {
        let is_late = || first.last_key_value().is_none_or(|(last, _)| *last < connection.id);
        if filter.is_none() && first.len() >= LISTED && is_late() {
            // This connection is not listed, so its texts are not needed.
            more += 1;
            continue;
        }
        let upload = Upload::new(&connection);
        if !upload.matches(filter) {
            continue;
        }
        first.insert(upload.id, upload);
        if first.len() > LISTED {
            first.pop_last();
            more += 1;
        }
    }
    (first.into_values().collect(), more)
}

impl Upload {
    fn new(connection: &ConnectionStatus) -> Upload {
        let age = connection.age.as_secs_f64();
        let rate = if age > 0.0 { connection.bytes as f64 / age } else { 0.0 };
        Upload {
            id: connection.id,
            peer: connection.peer.map(peer_text),
            identity: connection.identity.as_deref().map(name),
            dialect: connection.dialect.map(Dialect::name),
            phase: connection.phase.name(),
            bytes: connection.bytes,
            rate: rate.round(),
            age: rounded(connection.age),
            idle: rounded(connection.idle),
        }
    }

    fn matches(&self, filter: Option<&Filter>) -> bool {
        let texts = [self.peer.as_deref(), self.identity.as_deref()];
        filter.is_none_or(|filter| filter.matches(Some(self.id), texts))
    }
}

impl Ended {
    fn new(record: &Record) -> Ended {
        let failure = record.failure.as_deref();
        Ended {
            time: format!("{:.3}", record.time),
            id: record.id,
            peer: record.peer.map(peer_text),
            identity: record.identity.as_deref().map(name),
            dialect: record.dialect.map(Dialect::name),
            bytes: record.bytes,
            digest: record.digest.map(|digest| digest.to_string()),
            duration: record.duration.as_micros() as f64 / 1e6,
            outcome: match (record.id, failure) {
                (None, _) => "refused",
                (Some(_), None) => "complete",
                (Some(_), Some(_)) => "error",
            },
            reason: failure.map(|failure| failure.reason),
            error: failure.map(|failure| failure.error.clone()),
            explanation: failure.map(|failure| failure.explanation.clone()),
            expected: failure.and_then(|failure| failure.expected.clone()),
            received: failure.and_then(|failure| failure.received.clone()),
            unmarked: failure.and_then(|failure| failure.unmarked.clone()),
            note: record.note.as_deref().map(str::to_owned),
        }
    }

    fn matches(&self, filter: Option<&Filter>) -> bool {
        let texts = [self.peer.as_deref(), self.identity.as_deref()];
        filter.is_none_or(|filter| filter.matches(self.id, texts))
    }
}

impl Limits {
    fn new(limits: &ServerLimits) -> Limits {
        Limits {
            handshake: limits.dialect.to_string(),
            timeout: limits.transfer.idle_timeout.as_secs_f64(),
            max_connections: limits.max_connections,
            max_per_ip: limits.max_per_ip.map(u32::from),
            max_new_per_ip: limits.max_new_per_ip.map(u32::from),
            max_size: limits.transfer.max_size,
            max_duration: limits.transfer.max_duration.map(|limit| limit.as_secs_f64()),
            min_rate: limits.transfer.min_rate,
        }
    }
}

impl Totals {
    fn new(stats: Stats) -> Totals {
        Totals {
            accepted: stats.accepted,
            in_service: stats.in_service,
            complete: stats.completed,
            error: stats.failed,
            refused: stats.refused,
            accept_errors: stats.accept_errors,
            bytes: stats.bytes,
        }
    }
}

/// A search for connections: a number, or a part of an address or name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter(String);

impl Filter {
    /// Returns the filter of a query such as `q=192.0.2`; `None` if it is empty.
    pub(super) fn of_query(query: &str) -> Option<Filter> {
        let value = query.split('&').find_map(|pair| pair.strip_prefix("q="))?;
        let text = clip_to(decoded(value).trim(), LONGEST_NAME);
        (!text.is_empty()).then_some(Filter(text))
    }

    fn matches(&self, id: Option<u64>, texts: [Option<&str>; 2]) -> bool {
        let sought = self.0.to_lowercase();
        match sought.strip_prefix('#').unwrap_or(&sought).parse() {
            Ok(number) => id == Some(number),
            Err(_) => {
                let is_part = |text: &str| text.to_lowercase().contains(&sought);
                texts.into_iter().flatten().any(is_part)
            }
        }
    }
}

/// Decodes a value of a form: `+` is a space, `%41` a byte.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).filter(|_| *first == b'%');
        let byte = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn name(identity: &str) -> String {
    clip_to(identity, LONGEST_NAME)
}

/// Returns a duration in seconds, rounded to milliseconds.
fn rounded(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_a_number_or_a_part_of_an_address_or_name() {
        let filter = |query: &str| Filter::of_query(query).unwrap();
        let peer = Some("192.0.2.17:4000");
        assert!(filter("q=17").matches(Some(17), [None, None]));
        assert!(filter("q=%2317").matches(Some(17), [None, None]));
        assert!(!filter("q=17").matches(Some(170), [None, None]));
        assert!(!filter("q=17").matches(Some(1), [peer, Some("17")]));
        assert!(filter("q=.17:").matches(Some(1), [peer, None]));
        assert!(filter("x=1&q=192.0.2.").matches(Some(1), [peer, None]));
        assert!(filter("q=ADA").matches(None, [peer, Some("ada@laptop")]));
        assert!(!filter("q=bob").matches(Some(1), [peer, Some("ada@laptop")]));
        for none in ["", "q=", "q=++", "p=1", "q"] {
            assert_eq!(Filter::of_query(none), None, "{none:?}");
        }
        assert_eq!(filter("q=a+b%3Cc%zz%4"), Filter("a b<c%zz%4".to_owned()));
        assert_eq!(filter("q=%ff%E2%80%AE").0, "\u{fffd}\\u{202e}");
        assert_eq!(filter(&format!("q={}", "x".repeat(9999))).0.chars().count(), LONGEST_NAME + 1);
    }
}
