//! The handshake of the client.

use super::{HandshakeError, common_prefix, mismatch};
use crate::dialect::{CONFIRMATIONS, Dialect, FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION};

/// A handshake that waits for more bytes of the server's greeting.
///
/// ```
/// use accio_proto::{Dialect, handshake::{ClientHandshake, ClientStep}};
///
/// let ClientStep::Wait { handshake, .. } = ClientHandshake::begin(Dialect::Accio) else {
///     unreachable!("accio waits for the greeting");
/// };
/// let ClientStep::Wait { handshake, .. } = handshake.receive(b"acc")? else { unreachable!() };
/// let step = handshake.receive(b"io\r\n")?;
/// assert_eq!(step, ClientStep::Established { send: b"", consumed: 4 });
/// # Ok::<(), accio_proto::handshake::HandshakeError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientHandshake {
    /// The replies to the greetings, one for each.
    answers: &'static [&'static [u8]],
    /// Number of received bytes of the current greeting; less than its length.
    matched: usize,
}

/// Next step of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ClientStep {
    /// All input is consumed. Send `send`, which may be empty, then pass the next bytes to
    /// `handshake`.
    Wait {
        /// Bytes to send now.
        send: &'static [u8],
        /// The handshake after this input.
        handshake: ClientHandshake,
    },
    /// The handshake is complete. Send `send`, which may be empty, then the file.
    Established {
        /// Bytes to send now.
        send: &'static [u8],
        /// Number of bytes of the input that belong to the handshake. The rest can be dropped,
        /// because the server has nothing more to send.
        consumed: usize,
    },
}

impl ClientHandshake {
    /// Returns the first step of a new connection.
    pub fn begin(dialect: Dialect) -> ClientStep {
        let answers: &[&[u8]] = match dialect {
            Dialect::Direct => return ClientStep::Established { send: &[], consumed: 0 },
            Dialect::Accio => &[&[]],
            Dialect::Confirm => &[FIRST_CONFIRMATION, SECOND_CONFIRMATION],
        };
        ClientStep::Wait { send: &[], handshake: ClientHandshake { answers, matched: 0 } }
    }

    /// Processes the next bytes from the server; `input` may have any length.
    ///
    /// A call returns at most one reply, which belongs to the first greeting within `input`. When
    /// [`ClientStep::Wait`] has bytes to send, the bytes after that greeting are already processed,
    /// because a server may send both greetings together.
    ///
    /// # Errors
    ///
    /// Returns [`HandshakeError::Mismatch`] at the first byte that does not belong to the greeting.
    pub fn receive(self, input: &[u8]) -> Result<ClientStep, HandshakeError> {
        let good = common_prefix(GREETING, self.matched, input);
        let matched = self.matched + good;
        if matched < GREETING.len() {
            return if good == input.len() {
                Ok(ClientStep::Wait { send: &[], handshake: ClientHandshake { matched, ..self } })
            } else {
                Err(mismatch(GREETING, matched, input[good]))
            };
        }
        match self.answers {
            [answer, answers @ ..] if !answers.is_empty() => {
                let rest = &input[good..];
                match (ClientHandshake { answers, matched: 0 }).receive(rest)? {
                    ClientStep::Wait { handshake, .. } => {
                        Ok(ClientStep::Wait { send: answer, handshake })
                    }
                    // The input completed both greetings, so both replies are due, and they are
                    // adjacent.
                    ClientStep::Established { consumed, .. } => Ok(ClientStep::Established {
                        send: CONFIRMATIONS,
                        consumed: good + consumed,
                    }),
                }
            }
            answers => Ok(ClientStep::Established {
                send: answers.first().copied().unwrap_or_default(),
                consumed: good,
            }),
        }
    }

    /// Returns the error for a server that has closed its side of the connection (FIN).
    pub fn closed(self) -> HandshakeError {
        HandshakeError::Closed { expected: GREETING, matched: self.matched }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes `pieces` to a handshake; returns the bytes it sent and the unused rest of the input.
    fn run(dialect: Dialect, pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), HandshakeError> {
        let mut sent = Vec::new();
        let mut step = ClientHandshake::begin(dialect);
        let mut pieces = pieces.iter();
        let mut left = 0;
        loop {
            match step {
                ClientStep::Wait { send, handshake } => {
                    sent.extend_from_slice(send);
                    let Some(piece) = pieces.next() else { return Ok((sent, None)) };
                    step = handshake.receive(piece)?;
                    if let ClientStep::Established { consumed, .. } = step {
                        left = piece.len() - consumed;
                    }
                }
                ClientStep::Established { send, .. } => {
                    sent.extend_from_slice(send);
                    return Ok((sent, Some(left)));
                }
            }
        }
    }

    #[test]
    fn direct_sends_without_waiting() {
        assert_eq!(run(Dialect::Direct, &[]), Ok((vec![], Some(0))));
    }

    #[test]
    fn accio_waits_for_the_whole_greeting_in_any_pieces() {
        for cut in 0..GREETING.len() {
            assert_eq!(run(Dialect::Accio, &[&GREETING[..cut]]), Ok((vec![], None)));
            let pieces = [&GREETING[..cut], &GREETING[cut..]];
            assert_eq!(run(Dialect::Accio, &pieces), Ok((vec![], Some(0))));
        }
        assert_eq!(run(Dialect::Accio, &[b"accio\r\nmore"]), Ok((vec![], Some(4))));
    }

    #[test]
    fn confirm_replies_to_each_greeting_in_any_pieces() {
        let wire = [GREETING, GREETING].concat();
        let both = [FIRST_CONFIRMATION, SECOND_CONFIRMATION].concat();
        for cut in 0..=wire.len() {
            let early = run(Dialect::Confirm, &[&wire[..cut]]);
            let expected = match cut {
                14 => (both.clone(), Some(0)),
                7.. => (FIRST_CONFIRMATION.to_vec(), None),
                _ => (vec![], None),
            };
            assert_eq!(early, Ok(expected), "the first {cut} bytes");
            let pieces = [&wire[..cut], &wire[cut..]];
            assert_eq!(run(Dialect::Confirm, &pieces), Ok((both.clone(), Some(0))));
        }
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(run(Dialect::Confirm, &bytes), Ok((both, Some(0))));
    }

    #[test]
    fn a_wrong_byte_fails_at_once() {
        let error = run(Dialect::Accio, &[b"ac", b"c\x1bz"]).unwrap_err();
        assert_eq!(error.to_string(), r#"expected "accio\r\n", got "acc\x1b""#);
        let error = run(Dialect::Confirm, &[b"accio\r\nhello"]).unwrap_err();
        assert_eq!(error.to_string(), r#"expected "accio\r\n", got "h""#);
    }

    #[test]
    fn a_close_reports_the_number_of_matching_bytes() {
        let ClientStep::Wait { handshake, .. } = ClientHandshake::begin(Dialect::Accio) else {
            panic!()
        };
        let Ok(ClientStep::Wait { handshake, .. }) = handshake.receive(b"acc") else { panic!() };
        assert_eq!(handshake.closed().to_string(), r#"closed after 3 of 7 bytes of "accio\r\n""#);
    }
}
