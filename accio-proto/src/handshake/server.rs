//! The handshake of the server.

use super::{HandshakeError, common_prefix, mismatch};
use crate::dialect::{
    CONFIRMATIONS, Dialect, FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION, ServerDialect,
};

/// A handshake that waits for more bytes from the client.
///
/// ```
/// use accio_proto::{Dialect, ServerDialect, handshake::{ServerHandshake, ServerStep}};
///
/// // Greet, and wait for the client's first bytes.
/// let ServerStep::Wait { send, handshake } = ServerHandshake::begin(ServerDialect::Auto) else {
///     unreachable!("auto listens before it decides");
/// };
/// assert_eq!(send, b"accio\r\n");
///
/// // They turn out to be a file that begins like a confirmation.
/// let step = handshake.receive(b"confirm your order")?;
/// let ServerStep::Established { dialect, kept, consumed, .. } = step else { unreachable!() };
/// assert_eq!(dialect, Dialect::Accio);
/// assert_eq!(kept, b"");                  // nothing from earlier calls
/// assert_eq!(consumed, 0);                // so all of this input is content
/// # Ok::<(), accio_proto::handshake::HandshakeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerHandshake {
    mode: Mode,
    /// Number of matched bytes of `CONFIRMATIONS`; less than its length.
    matched: usize,
}

/// Meaning of a mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The client speaks `accio`, and every received byte is content.
    Auto,
    /// The client violated the protocol.
    Confirm,
}

/// Next step of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ServerStep {
    /// All input is consumed. Send `send`, which may be empty, then pass the next bytes to
    /// `handshake`.
    Wait {
        /// Bytes to send now.
        send: &'static [u8],
        /// The handshake after this input.
        handshake: ServerHandshake,
    },
    /// The handshake is complete. The content is `kept`, then `input[consumed..]`, then all later
    /// bytes. Send `send`, which may be empty; content need not wait for it.
    Established {
        /// Bytes to send now.
        send: &'static [u8],
        /// Dialect of the client.
        dialect: Dialect,
        /// Content from earlier calls.
        kept: &'static [u8],
        /// Number of bytes of the input that belong to the handshake.
        consumed: usize,
    },
}

impl ServerHandshake {
    /// Returns the first step of a new connection.
    pub fn begin(dialect: ServerDialect) -> ServerStep {
        let mode = match dialect {
            ServerDialect::Auto => Mode::Auto,
            ServerDialect::Only(Dialect::Confirm) => Mode::Confirm,
            ServerDialect::Only(dialect) => {
                let send = if dialect == Dialect::Direct { &[] } else { GREETING };
                return ServerStep::Established { send, dialect, kept: &[], consumed: 0 };
            }
        };
        ServerStep::Wait { send: GREETING, handshake: ServerHandshake { mode, matched: 0 } }
    }

    /// Processes the next bytes from the client; `input` may have any length.
    ///
    /// # Errors
    ///
    /// Returns [`HandshakeError::Mismatch`] if the server accepts only `confirm` and the bytes do
    /// not belong to it.
    pub fn receive(self, input: &[u8]) -> Result<ServerStep, HandshakeError> {
        let good = common_prefix(CONFIRMATIONS, self.matched, input);
        let matched = self.matched + good;
        let first_just_done = (self.matched + 1..=matched).contains(&FIRST_CONFIRMATION.len());
        let send = if first_just_done { GREETING } else { &[] };

        if matched == CONFIRMATIONS.len() {
            let dialect = Dialect::Confirm;
            Ok(ServerStep::Established { send, dialect, kept: &[], consumed: good })
        } else if good == input.len() {
            Ok(ServerStep::Wait { send, handshake: ServerHandshake { matched, ..self } })
        } else {
            match self.mode {
                // A client that waits for a second greeting sends nothing after the first
                // confirmation. This client does not wait, so a second greeting would only remain
                // unread and turn the client's close into a reset.
                Mode::Auto => Ok(self.content(&[])),
                Mode::Confirm => {
                    let (line, matched) = due(matched);
                    Err(mismatch(line, matched, input[good]))
                }
            }
        }
    }

    /// Processes the end of the client's bytes (FIN).
    ///
    /// # Errors
    ///
    /// Returns [`HandshakeError::Closed`] if the server accepts only `confirm` and has received a
    /// part of it. Without any byte the file is empty.
    pub fn finish(self) -> Result<ServerStep, HandshakeError> {
        match self.mode {
            Mode::Auto => Ok(self.content(&[])),
            Mode::Confirm if self.matched == 0 => {
                let dialect = Dialect::Confirm;
                Ok(ServerStep::Established { send: &[], dialect, kept: &[], consumed: 0 })
            }
            Mode::Confirm => {
                let (expected, matched) = due(self.matched);
                Err(HandshakeError::Closed { expected, matched })
            }
        }
    }

    /// Returns the number of bytes that are held back because they may still belong to the
    /// handshake.
    pub fn held_back(self) -> usize {
        self.matched
    }

    /// Returns the step for a file that only resembled a handshake: the bytes held back and all of
    /// the current input are content.
    fn content(self, send: &'static [u8]) -> ServerStep {
        // The bytes held back matched the confirmations, so they are a slice of that constant: no
        // copy is needed.
        let kept = &CONFIRMATIONS[..self.matched];
        ServerStep::Established { send, dialect: Dialect::Accio, kept, consumed: 0 }
    }
}

/// Returns the expected line after `matched` bytes of both, and how many bytes of it were received.
fn due(matched: usize) -> (&'static [u8], usize) {
    match matched.checked_sub(FIRST_CONFIRMATION.len()) {
        None => (FIRST_CONFIRMATION, matched),
        Some(matched) => (SECOND_CONFIRMATION, matched),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type End = Result<(Dialect, Vec<u8>), HandshakeError>;

    /// Passes `pieces` and then FIN to a handshake; returns the bytes it sent, the dialect and the
    /// content.
    fn run(dialect: ServerDialect, pieces: &[&[u8]]) -> (Vec<u8>, End) {
        let mut sent = Vec::new();
        let mut step = ServerHandshake::begin(dialect);
        let mut pieces = pieces.iter();
        let mut content = Vec::new();
        loop {
            match step {
                ServerStep::Wait { send, handshake } => {
                    sent.extend_from_slice(send);
                    let next = match pieces.next() {
                        Some(piece) => handshake.receive(piece).inspect(|step| {
                            if let ServerStep::Established { kept, consumed, .. } = step {
                                content.extend_from_slice(kept);
                                content.extend_from_slice(&piece[*consumed..]);
                            }
                        }),
                        None => handshake.finish().inspect(|step| {
                            if let ServerStep::Established { kept, .. } = step {
                                content.extend_from_slice(kept);
                            }
                        }),
                    };
                    match next {
                        Ok(next) => step = next,
                        Err(error) => return (sent, Err(error)),
                    }
                }
                ServerStep::Established { send, dialect, .. } => {
                    sent.extend_from_slice(send);
                    pieces.for_each(|piece| content.extend_from_slice(piece));
                    return (sent, Ok((dialect, content)));
                }
            }
        }
    }

    const AUTO: ServerDialect = ServerDialect::Auto;
    const CONFIRM: ServerDialect = ServerDialect::Only(Dialect::Confirm);
    const TWICE: &[u8] = b"accio\r\naccio\r\n";

    #[test]
    fn direct_and_accio_are_established_at_once() {
        let (sent, end) = run(Dialect::Direct.into(), &[b"confirm-accio\r\nx"]);
        assert_eq!((sent, end), (vec![], Ok((Dialect::Direct, b"confirm-accio\r\nx".to_vec()))));
        let (sent, end) = run(Dialect::Accio.into(), &[b"confirm-accio\r\nx"]);
        let content = b"confirm-accio\r\nx".to_vec();
        assert_eq!((sent, end), (GREETING.to_vec(), Ok((Dialect::Accio, content))));
    }

    #[test]
    fn recognises_confirm_in_one_piece_and_byte_by_byte() {
        let wire = [FIRST_CONFIRMATION, SECOND_CONFIRMATION, b"content"].concat();
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        for dialect in [AUTO, CONFIRM] {
            for pieces in [&[&wire[..]][..], &bytes] {
                let (sent, end) = run(dialect, pieces);
                assert_eq!(sent, TWICE);
                assert_eq!(end, Ok((Dialect::Confirm, b"content".to_vec())));
            }
        }
    }

    #[test]
    fn auto_keeps_every_byte_of_a_file_that_resembles_a_handshake() {
        let wire = [FIRST_CONFIRMATION, SECOND_CONFIRMATION].concat();
        for length in 0..wire.len() {
            for tail in [&b""[..], b"?", b"?more"] {
                let file = [&wire[..length], tail].concat();
                for cut in 0..=file.len() {
                    let (sent, end) = run(AUTO, &[&file[..cut], &file[cut..]]);
                    assert_eq!(end, Ok((Dialect::Accio, file.clone())));
                    // There is no second greeting if the mismatch is in the read that completes the
                    // first confirmation.
                    let first = FIRST_CONFIRMATION.len();
                    let is_whole = length >= first;
                    let is_split = (first..=length).contains(&cut) || tail.is_empty();
                    assert_eq!(sent == TWICE, is_whole && is_split, "{length} {cut} {tail:?}");
                }
            }
        }
    }

    #[test]
    fn content_in_the_read_of_the_first_confirmation_gets_no_second_greeting() {
        let file = [FIRST_CONFIRMATION, &[b'x'; 1000]].concat();
        let (sent, end) = run(AUTO, &[&file]);
        assert_eq!((&sent[..], end), (GREETING, Ok((Dialect::Accio, file.clone()))));
        // A client that stops right after the confirmation may be waiting for the greeting.
        let (sent, _) = run(AUTO, &[FIRST_CONFIRMATION, b"x"]);
        assert_eq!(sent, TWICE);
    }

    #[test]
    fn confirm_reports_expected_and_received_bytes() {
        for cut in 0..4 {
            let (_, end) = run(CONFIRM, &[&b"conX"[..cut], &b"conX"[cut..]]);
            let error = end.unwrap_err().to_string();
            assert_eq!(error, r#"expected "confirm-accio\r\n", got "conX""#);
        }
        let wire = b"confirm-accio\r\nconfirm-accio-again\r\nX";
        for cut in 0..wire.len() {
            let (_, end) = run(CONFIRM, &[&wire[..cut], &wire[cut..]]);
            let error = end.unwrap_err().to_string();
            let expected =
                r#"expected "confirm-accio-again\r\n\r\n", got "confirm-accio-again\r\nX""#;
            assert_eq!(error, expected, "cut at {cut}");
        }
    }

    #[test]
    fn confirm_fails_on_fin_during_the_handshake_unless_no_byte_arrived() {
        assert_eq!(run(CONFIRM, &[]).1, Ok((Dialect::Confirm, vec![])));
        let wire = [FIRST_CONFIRMATION, SECOND_CONFIRMATION].concat();
        for length in 1..wire.len() {
            assert!(matches!(
                run(CONFIRM, &[&wire[..length]]).1,
                Err(HandshakeError::Closed { .. })
            ));
        }
        let error = run(CONFIRM, &[&wire[..15]]).1.unwrap_err().to_string();
        assert_eq!(error, r#"closed after 0 of 23 bytes of "confirm-accio-again\r\n\r\n""#);
    }

    #[test]
    fn empty_input_has_no_effect() {
        let ServerStep::Wait { handshake, .. } = ServerHandshake::begin(AUTO) else { panic!() };
        assert_eq!(handshake.receive(b""), Ok(ServerStep::Wait { send: &[], handshake }));
        assert_eq!(handshake.held_back(), 0);
        let Ok(ServerStep::Wait { handshake, .. }) = handshake.receive(b"conf") else { panic!() };
        assert_eq!(handshake.held_back(), 4);
    }
}
