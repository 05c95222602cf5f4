//! Names the probable cause of a failed check, from what was observed.

use accio_harness::peer::{End, FIRST, GREETING, SECOND};
use accio_harness::subject::Program;
use accio_harness::timeline::{Event, What};

use crate::check::Check;

const ONE_RECV: &str = "One recv was taken for the whole greeting: TCP may deliver it in parts. Look \
    at the code that receives the greeting: repeat recv until all 7 bytes have arrived.";
const UNCHECKED_SEND: &str = "send was taken for complete: it may accept fewer bytes than it was \
    given. Look at each send of the content: use sendall, or repeat it with the rest.";
const COUNTED: &str = "The bytes of the handshake were counted or stored as content. Look at where \
    the content begins: after the last \\r\\n\\r\\n of the second confirmation.";
const UNREAD: &str = "The connection was closed while received bytes were unread, so the system \
    sent a reset instead of an end. Read both greetings before you close.";
const PARTIAL: &str = "ERROR was appended to the bytes received so far. The file contains the five \
    bytes ERROR and nothing else: empty it before you write ERROR.";
const BY_COMPLETION: &str = "Connections are numbered when they finish. Number each one when it is \
    accepted, before its thread starts.";
const ONE_ADDRESS: &str = "The server is bound to one address. Bind to 0.0.0.0 (in Python also '') \
    instead of 127.0.0.1 or localhost.";
const EXITS: &str = "The program ended inside its signal handler, or the interrupted accept failed. \
    Only set a flag in the handler, and leave the loop of accept when it is set.";
const DEAF: &str = "The signal did not end the wait in accept. Give the listening socket a timeout \
    and look at the flag of the handler, or close the socket in the handler.";

/// Returns the probable cause, if what was observed tells it.
pub(crate) fn find(
    check: &Check,
    expected: &str,
    actual: &str,
    events: &[Event],
) -> Option<&'static str> {
    let name = check.id.rsplit('/').next().unwrap_or_default();
    let is_client = check.program == Program::Client;
    if !is_client && (actual.contains("listens on 127.") || actual.contains("bound to 127.")) {
        return Some(ONE_ADDRESS);
    }
    if !is_client && matches!(name, "3" | "sigterm" | "sigquit") {
        let ended = actual.contains("exit code") || actual.contains("death by signal");
        return Some(if ended { EXITS } else { DEAF });
    }
    if is_client && ended_within_greeting(events) {
        return Some(ONE_RECV);
    }
    if check.id == "server/8" && actual.contains(" byte") {
        return Some(BY_COMPLETION);
    }
    let counted = difference(expected, actual).is_some_and(|more| {
        [FIRST.len(), SECOND.len(), FIRST.len() + SECOND.len()].contains(&more)
    });
    if !is_client && (counted || (actual.contains("\"confirm-accio") && !name.starts_with('5'))) {
        return Some(COUNTED);
    }
    let is_error_file = expected.contains("5 bytes \"ERROR\"");
    if !is_client && is_error_file && actual.contains("ERROR") {
        return Some(PARTIAL);
    }
    let was_reset = events.iter().any(|event| event.what == What::Ended(End::Reset));
    if is_client && was_reset && !matches!(name, "9" | "never-closes") {
        return Some(UNREAD);
    }
    let fewer = actual.contains("only the first ");
    if is_client && fewer && matches!(name, "9" | "12" | "13" | "slow-reader" | "100mib" | "loss") {
        return Some(UNCHECKED_SEND);
    }
    None
}

/// Returns whether the program gave up a connection on which only a part of a greeting had been
/// sent, or answered nothing to a greeting in parts: its end may be noticed only after the last
/// part.
fn ended_within_greeting(events: &[Event]) -> bool {
    let connections = events.iter().map(|event| event.connection).max().unwrap_or(0);
    (1..=connections).any(|connection| {
        let (mut sent, mut parts) = (0, 0);
        for event in events.iter().filter(|event| event.connection == connection) {
            match &event.what {
                What::Sent(_, length) => (sent, parts) = (sent + length, parts + 1),
                What::Ended(_) if parts > 1 && sent == GREETING.len() => return true,
                // Bytes of the client before the end of the greeting belong to the same fault.
                What::Received(..) | What::Ended(_) => return (1..GREETING.len()).contains(&sent),
                What::Opened | What::Closed => {}
            }
        }
        // The rest could not be sent.
        (1..GREETING.len()).contains(&sent)
    })
}

/// Returns how much larger the first number of `more` is than that of `less`.
fn difference(less: &str, more: &str) -> Option<usize> {
    number(more)?.checked_sub(number(less)?)
}

/// Returns the first number of bytes or lines that a text names.
fn number(text: &str) -> Option<usize> {
    let quoted =
        text.split('"').nth(1).filter(|_| text.contains('[')).and_then(|one| one.parse().ok());
    quoted.or_else(|| {
        let before = text.split(" byte").next().filter(|before| before.len() < text.len())?;
        before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checks;

    fn cause(id: &str, expected: &str, actual: &str, events: &[What]) -> Option<&'static str> {
        let check = checks::all().find(|check| check.id == id).unwrap();
        let events: Vec<Event> = events
            .iter()
            .map(|what| Event { at: Duration::ZERO, connection: 1, what: what.clone() })
            .collect();
        find(check, expected, actual, &events)
    }

    #[test]
    fn names_the_most_frequent_faults() {
        let part = What::Sent(b"acc".to_vec(), 3);
        let whole = What::Sent(GREETING.to_vec(), 7);
        let (fin, reset) = (What::Ended(End::Fin), What::Ended(End::Reset));
        let rest = What::Sent(b"io\r\n".to_vec(), 4);
        assert_eq!(cause("client/split", "", "", &[part.clone(), rest, fin]), Some(ONE_RECV));
        let fin = What::Ended(End::Fin);
        assert_eq!(cause("client/split", "", "FIN", &[part, fin]), Some(ONE_RECV));
        assert_eq!(cause("client/11", "", "a reset", &[whole.clone(), reset]), Some(UNREAD));
        let part_of = "only the first 4096 bytes; the last 96 are missing";
        assert_eq!(cause("client/12", "", part_of, &[]), Some(UNCHECKED_SEND));
        let printed = r#"printed: ["1000"]"#;
        assert_eq!(cause("server-s/12", printed, r#"["1038"]"#, &[]), Some(COUNTED));
        assert_eq!(cause("server-s/12", printed, r#"["999"]"#, &[]), None);
        let error = r#"1.file to contain 5 bytes "ERROR""#;
        assert_eq!(cause("server/9", error, r#"105 bytes "xx…ERROR""#, &[]), Some(PARTIAL));
        assert_eq!(cause("server/4", "", "it listens on 127.0.0.1 only", &[]), Some(ONE_ADDRESS));
        assert_eq!(cause("server/3", "exit code 0", "exit code 1, stderr", &[]), Some(EXITS));
        assert_eq!(cause("server/3", "exit code 0", "it is still running", &[]), Some(DEAF));
        assert_eq!(cause("server/8", "", r#"3 bytes "abc""#, &[]), Some(BY_COMPLETION));
        assert_eq!(cause("client/8", "", "FIN", &[whole]), None);
    }
}
