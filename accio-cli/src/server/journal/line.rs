//! The lines of the journal, as JSON.

use accio_proto::{Abort, Dialect, Outcome, os_error_text};
use jiff::Timestamp;
use serde::Serialize;

use crate::escape_json;

/// The line of a finished connection.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    time: String,
    id: u64,
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
    dialect: Option<&'a str>,
    bytes: u64,
    /// The digest of a complete file, with `--digest`.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// In seconds.
    duration: f64,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why not even the error marker was kept, if that failed too.
    #[serde(skip_serializing_if = "Option::is_none")]
    unmarked: Option<String>,
}

/// The line that stands for lines that could not be written.
#[derive(Debug, Serialize)]
struct Lost {
    time: String,
    lost: u64,
}

/// Returns the line for a connection that ended at `time`.
pub(super) fn ended(outcome: &Outcome, time: Timestamp) -> Vec<u8> {
    let error = outcome.result.as_ref().err();
    // The address of an IPv4 client is written as IPv4, even if it arrived on an IPv6 socket.
    line(&Ended {
        time: format!("{time:.6}"),
        id: outcome.connection.id,
        peer: outcome.connection.peer.map(crate::peer_text),
        identity: outcome.connection.identity.as_deref(),
        dialect: outcome.connection.dialect.map(Dialect::name),
        bytes: outcome.bytes,
        digest: outcome.digest.map(|digest| digest.to_string()),
        duration: outcome.duration.as_micros() as f64 / 1e6,
        outcome: if error.is_none() { "complete" } else { "error" },
        reason: error.map(Abort::code),
        error: error.map(ToString::to_string),
        unmarked: outcome.unmarked.as_ref().map(os_error_text),
    })
}

/// The line of a failed TLS handshake.
#[cfg(feature = "tls-server")]
#[derive(Debug, Serialize)]
struct Refused<'a> {
    time: String,
    peer: Option<String>,
    /// In seconds.
    duration: f64,
    outcome: &'a str,
    reason: &'a str,
    error: String,
}

/// Returns the line for a TLS handshake that failed at `time`.
#[cfg(feature = "tls-server")]
pub(super) fn refused(failed: &accio_proto::FailedHandshake, time: Timestamp) -> Vec<u8> {
    line(&Refused {
        time: format!("{time:.6}"),
        peer: failed.peer.map(crate::peer_text),
        duration: failed.duration.as_micros() as f64 / 1e6,
        outcome: "refused",
        reason: failed.failure.code(),
        error: failed.failure.to_string(),
    })
}

/// Returns the line that stands for `count` lines that could not be written.
pub(super) fn lost(count: u64, time: Timestamp) -> Vec<u8> {
    line(&Lost { time: format!("{time:.6}"), lost: count })
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Serializing numbers and strings cannot fail.
    let line = serde_json::to_string(value).unwrap_or_default();
    (escape_json(line) + "\n").into_bytes()
}
