//! Explanations of failed transfers, for developers of clients.

use accio_proto::handshake::HandshakeError;
use accio_proto::{Abort, Dialect, FIRST_CONFIRMATION, SECOND_CONFIRMATION, os_error_text};

/// Explains in a few sentences why a transfer failed and what to check. `dialect` is that of the
/// outcome: `None` if the handshake was not complete.
pub fn explain(why: &Abort, dialect: Option<Dialect>) -> String {
    match why {
        Abort::Idle(limit) if dialect.is_none() => format!(
            "The client sent nothing for {} s, and the handshake was not complete. Check that it accepts \
             the greeting in pieces of any size, and that it sends what its dialect requires.",
            limit.as_secs_f64()
        ),
        Abort::Idle(limit) => format!(
            "The client sent nothing for {} s. Check that it sends the whole file, closes its side of \
             the connection after the last byte, and does not wait for bytes that the server never \
             sends.",
            limit.as_secs_f64()
        ),
        Abort::TooSlow { min_rate, .. } => {
            format!("The client sent less than {min_rate} bytes per second, the minimum rate here.")
        }
        Abort::TooLong(limit) => format!(
            "The transfer took longer than {} s, the maximum duration here.",
            limit.as_secs_f64()
        ),
        Abort::TooLarge(limit) => {
            format!("The file is larger than {limit} bytes, the maximum size here.")
        }
        Abort::Reset(_) => "The connection was reset before the file was complete. That happens when \
             the client is killed, or when it closes its socket while bytes of the server are still \
             unread: read each greeting to its end, and end the file by closing the sending side."
            .to_owned(),
        Abort::Truncated => "The TLS connection ended without close_notify, so the file may be \
             incomplete. End the TLS session before closing the socket."
            .to_owned(),
        Abort::Tls(_) => "The client sent bytes that are not valid TLS, or reported an error of its \
             own."
            .to_owned(),
        Abort::Handshake(error) => explain_handshake(error),
        Abort::Sink { action, cause } => format!(
            "The server could not {action} the file: {}. The client is not at fault.",
            os_error_text(cause)
        ),
        Abort::System(cause) => format!(
            "The server could not serve the connection: {}. The client is not at fault.",
            os_error_text(cause)
        ),
        Abort::Rejected(reason) => {
            format!("The whole file arrived, but a check of this server rejected it: {reason}.")
        }
        Abort::Shutdown => "The server was stopped during the transfer. The client is not at fault; \
             send the file again."
            .to_owned(),
        other => format!("{other}."),
    }
}

/// Returns the line that a failed handshake expected, and the bytes of it that were received, up to
/// the first wrong one; both with escapes such as `\r\n`.
pub(super) fn expectation(why: &Abort) -> Option<(String, String)> {
    let Abort::Handshake(error) = why else { return None };
    let (expected, received) = match error {
        HandshakeError::Mismatch { expected, got } => (*expected, &got[..]),
        HandshakeError::Closed { expected, matched } => (*expected, &expected[..*matched]),
        _ => return None,
    };
    Some((expected.escape_ascii().to_string(), received.escape_ascii().to_string()))
}

fn explain_handshake(error: &HandshakeError) -> String {
    match error {
        HandshakeError::Mismatch { expected, got } => {
            let line = name(expected);
            let Some((wrong, right)) = got.split_last() else {
                return format!("{line} was wrong.");
            };
            let at = right.len();
            let due = expected.get(at).map_or(String::new(), |due| due.escape_ascii().to_string());
            format!(
                "{line} was wrong at byte {}: expected {due}, received {}.{}",
                at + 1,
                wrong.escape_ascii(),
                hint(expected, at, *wrong)
            )
        }
        HandshakeError::Closed { expected, matched } => format!(
            "The client closed the connection after {matched} of the {} bytes of {}.",
            expected.len(),
            name(expected).to_lowercase()
        ),
        other => format!("{other}."),
    }
}

fn name(line: &[u8]) -> &'static str {
    match line {
        FIRST_CONFIRMATION => "The first confirmation",
        SECOND_CONFIRMATION => "The second confirmation",
        _ => "The handshake",
    }
}

/// Names the most frequent mistakes.
fn hint(expected: &[u8], at: usize, wrong: u8) -> &'static str {
    let is_second = expected == SECOND_CONFIRMATION;
    match (expected.get(at), wrong) {
        (Some(b'\r'), b'\n') => " A line ends with \\r\\n, not with \\n alone.",
        (Some(b'\r'), b'\\') => " Send the bytes 13 and 10, not a backslash and a letter.",
        (Some(b'\r'), _) if is_second && at > 20 => {
            " The second confirmation ends with an empty line."
        }
        _ if at == 0 => " Send the confirmation before any byte of the file.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use accio_proto::handshake::{ServerHandshake, ServerStep};
    use accio_proto::{Dialect, ServerDialect};

    use super::*;

    /// Returns the error of a `confirm` server that receives these bytes and then FIN.
    fn fails(bytes: &[u8]) -> Abort {
        let dialect = ServerDialect::Only(Dialect::Confirm);
        let ServerStep::Wait { handshake, .. } = ServerHandshake::begin(dialect) else { panic!() };
        let step = handshake.receive(bytes).and_then(|step| match step {
            ServerStep::Wait { handshake, .. } => handshake.finish(),
            established => Ok(established),
        });
        Abort::Handshake(step.unwrap_err())
    }

    #[test]
    fn names_the_confirmation_and_its_first_wrong_byte() {
        for (sent, expected, received, text) in [
            (
                &b"confirm-accio\n"[..],
                r"confirm-accio\r\n",
                r"confirm-accio\n",
                r"The first confirmation was wrong at byte 14: expected \r, received \n. A line ends with \r\n, not with \n alone.",
            ),
            (
                b"hello",
                r"confirm-accio\r\n",
                "h",
                "The first confirmation was wrong at byte 1: expected c, received h. Send the confirmation before any byte of the file.",
            ),
            (
                b"confirm-accio\\r\\n",
                r"confirm-accio\r\n",
                r"confirm-accio\\",
                r"The first confirmation was wrong at byte 14: expected \r, received \\. Send the bytes 13 and 10, not a backslash and a letter.",
            ),
            (
                b"confirm-accio\r\nconfirm-accio-again\r\nfile",
                r"confirm-accio-again\r\n\r\n",
                r"confirm-accio-again\r\nf",
                r"The second confirmation was wrong at byte 22: expected \r, received f. The second confirmation ends with an empty line.",
            ),
            (
                b"confirm-accio\r\nconf",
                r"confirm-accio-again\r\n\r\n",
                "conf",
                "The client closed the connection after 4 of the 23 bytes of the second confirmation.",
            ),
            (
                b"confirm-accio\r\n\x1b<",
                r"confirm-accio-again\r\n\r\n",
                r"\x1b",
                r"The second confirmation was wrong at byte 1: expected c, received \x1b. Send the confirmation before any byte of the file.",
            ),
        ] {
            let why = fails(sent);
            assert_eq!(explain(&why, None), text);
            assert_eq!(expectation(&why), Some((expected.to_owned(), received.to_owned())));
        }
        assert_eq!(expectation(&Abort::Shutdown), None);
    }

    #[test]
    fn explains_every_cause() {
        let io = || io::Error::from(io::ErrorKind::StorageFull);
        for (why, words) in [
            (Abort::Idle(Duration::from_millis(2500)), "nothing for 2.5 s"),
            (Abort::TooSlow { got: 1, min_rate: 64 }, "less than 64 bytes per second"),
            (Abort::TooLong(Duration::from_secs(9)), "longer than 9 s"),
            (Abort::TooLarge(7), "larger than 7 bytes"),
            (Abort::Reset(io()), "was reset"),
            (Abort::Truncated, "close_notify"),
            (Abort::Tls(io()), "not valid TLS"),
            (
                Abort::Sink { action: accio_proto::SinkCall::Write, cause: io() },
                "could not write the file",
            ),
            (Abort::System(io()), "could not serve"),
            (Abort::Rejected("a virus".to_owned()), "rejected it: a virus"),
            (Abort::Shutdown, "was stopped"),
        ] {
            let text = explain(&why, Some(Dialect::Accio));
            assert!(text.contains(words) && text.ends_with('.'), "{text}");
        }
        let text = explain(&Abort::Idle(Duration::from_secs(10)), None);
        assert!(text.contains("the handshake was not complete"), "{text}");
    }
}
