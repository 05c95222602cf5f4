//! Judges a session that has ended.

use accio_proto::handshake::HandshakeError;
use accio_proto::{Dialect, ServerDialect};

use crate::connection::{Connection, Happening};
use crate::oracle;
use crate::plan::{Arrival, Op};
use crate::socket::Line;

/// Required result of a session.
pub(crate) struct Verdict<'a> {
    pub(crate) due: Due<'a>,
    /// Whether the sink took the error marker.
    pub(crate) marked: bool,
}

pub(crate) enum Due<'a> {
    Kept(Dialect, &'a [u8]),
    Error(&'static str),
}

/// The oracle: complete if and only if FIN was the first end and the sink took all of it; every
/// other first happening has its own error.
pub(crate) fn judge<'a>(
    dialect: ServerDialect,
    max_size: Option<u64>,
    connection: &'a Connection,
    line: &Line,
) -> Verdict<'a> {
    let log = connection.log.lock().unwrap();
    let got = &connection.wire[..line.told.bytes];
    let fin = log.iter().position(|happening| *happening == Happening::Fin);
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
    let cause = log.iter().position(|h| !matches!(h, Happening::Opened | Happening::Fin));
    let (why, cause) = match cause.map(|cause| log[cause]) {
        _ if broken => ("handshake", fin),
        Some(Happening::Failed(Op::Open)) if content || fin.is_some() => ("open", cause),
        Some(Happening::Failed(Op::Write)) => ("write", cause),
        // What is too large was written; how it ended does not matter any more.
        _ if max_size.is_some_and(|max_size| size > max_size) => {
            ("large", log.iter().position(|happening| *happening == Happening::Opened))
        }
        Some(Happening::Failed(Op::Commit)) => ("commit", cause),
        Some(Happening::Stopped) => ("stopped", cause),
        Some(Happening::Reset) => {
            assert_eq!(connection.plan.first_end(), Some(&Arrival::Reset));
            ("reset", cause)
        }
        // The file is open if there was anything to put into it.
        _ if fin.is_none() => ("late", content.then_some(0)),
        _ => {
            assert_eq!(connection.plan.first_end(), Some(&Arrival::Fin));
            assert_eq!(got, connection.wire, "a FIN comes after all bytes");
            let (spoken, content) = oracle::expect(dialect, got).established.unwrap();
            return Verdict { due: Due::Kept(spoken, content), marked: false };
        }
    };
    // The marker goes to the file that is open, and if that fails to a fresh one.
    let after = &log[cause.map_or(0, |cause| cause + 1)..];
    assert_ne!(after, [Happening::Failed(Op::Abort)], "no second try to keep the marker");
    let marked = !matches!(after.last(), Some(Happening::Failed(_)));
    Verdict { due: Due::Error(why), marked }
}

/// Whether some of the bytes are content for certain, whatever comes next.
fn has_content(dialect: ServerDialect, got: &[u8]) -> bool {
    const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";
    match dialect {
        ServerDialect::Only(Dialect::Direct | Dialect::Accio) => !got.is_empty(),
        _ => !CONFIRMATIONS.starts_with(got),
    }
}
