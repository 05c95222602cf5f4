//! Judges a session that has ended.

use accio_proto::handshake::HandshakeError;
use accio_proto::{Dialect, ServerDialect};

use crate::connection::{Connection, LogEntry};
use crate::oracle;
use crate::plan::{Arrival, Op};
use crate::socket::Line;

/// Required result of a session.
pub(crate) struct Verdict<'a> {
    pub(crate) due: Due<'a>,
    /// Whether the sink stored the error marker.
    pub(crate) marked: bool,
}

pub(crate) enum Due<'a> {
    Stored(Dialect, &'a [u8]),
    Error(&'static str),
}

/// The oracle: a file is complete if and only if FIN was the first end and the sink stored
/// everything; any other first event has an error of its own.
pub(crate) fn judge<'a>(
    dialect: ServerDialect,
    max_size: Option<u64>,
    connection: &'a Connection,
    line: &Line,
) -> Verdict<'a> {
    let log = connection.log.lock().unwrap();
    let got = &connection.wire[..line.reported.bytes];
    let fin = log.iter().position(|happening| *happening == LogEntry::Fin);
    let strict = dialect == ServerDialect::Only(Dialect::Confirm);
    let broken = match oracle::broken(got) {
        Some(HandshakeError::Mismatch { .. }) => strict,
        Some(_) => strict && fin.is_some(),
        None => false,
    };
    let content = has_content(dialect, got);
    let size = match oracle::expect(dialect, got).established {
        Ok((_, bytes)) if content || fin.is_some() => bytes.len() as u64,
        _ => 0,
    };
    let cause = log.iter().position(|h| !matches!(h, LogEntry::Opened | LogEntry::Fin));
    let (why, cause) = match cause.map(|cause| log[cause]) {
        _ if broken => ("handshake", fin),
        Some(LogEntry::Failed(Op::Open)) if content || fin.is_some() => ("open", cause),
        Some(LogEntry::Failed(Op::Write)) => ("write", cause),
        // A too large file was written in part; it does not matter how it ended.
        _ if max_size.is_some_and(|max_size| size > max_size) => {
            ("large", log.iter().position(|happening| *happening == LogEntry::Opened))
        }
        Some(LogEntry::Failed(Op::Commit | Op::SyncNames)) => ("commit", cause),
        Some(LogEntry::Stopped) => ("stopped", cause),
        Some(LogEntry::Reset) => {
            assert!(!matches!(connection.plan.first_end(), None | Some(Arrival::Fin)));
            ("reset", cause)
        }
        #[cfg(feature = "tls")]
        Some(LogEntry::Truncated) => {
            let end = connection.plan.first_end();
            assert!(matches!(end, Some(Arrival::Cut { reset: false, .. })));
            ("truncated", cause)
        }
        // The file is open if any content was written to it.
        _ if fin.is_none() => ("late", content.then_some(0)),
        _ => {
            assert_eq!(connection.plan.first_end(), Some(&Arrival::Fin));
            assert_eq!(got, connection.wire, "a FIN comes after all bytes");
            let (spoken, content) = oracle::expect(dialect, got).established.unwrap();
            return Verdict { due: Due::Stored(spoken, content), marked: false };
        }
    };
    // The marker is written to the open file or, if that fails, to a new one.
    let after = &log[cause.map_or(0, |cause| cause + 1)..];
    assert_ne!(after, [LogEntry::Failed(Op::Abort)], "no second try to keep the marker");
    let marked = !matches!(after.last(), Some(LogEntry::Failed(_)));
    Verdict { due: Due::Error(why), marked }
}

/// Returns whether some of the bytes are content, whatever follows.
fn has_content(dialect: ServerDialect, got: &[u8]) -> bool {
    const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";
    match dialect {
        ServerDialect::Only(Dialect::Direct | Dialect::Accio) => !got.is_empty(),
        _ => !CONFIRMATIONS.starts_with(got),
    }
}
