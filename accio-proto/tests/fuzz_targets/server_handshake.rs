//! For any dialect, bytes and chunking, the result is that of the oracle for the whole input.

use accio_proto::handshake::{ServerHandshake, ServerStep};
use accio_proto::{Dialect, ServerDialect};

use crate::oracle;

/// The input, made from the bytes of the fuzzer.
pub(crate) type Input = (u8, Vec<Vec<u8>>);

pub(crate) fn run(input: Input) {
    let dialect = match input.0 % 4 {
        0 => ServerDialect::Auto,
        number => ServerDialect::Only(Dialect::ALL[usize::from(number) - 1]),
    };
    let wire = input.1.concat();
    let end = take(dialect, &input.1);
    let expected = oracle::expect(dialect, &wire).established;
    assert_eq!(end, expected.map(|(dialect, content)| (dialect, content.to_vec())));
}

fn take(
    dialect: ServerDialect,
    pieces: &[Vec<u8>],
) -> Result<(Dialect, Vec<u8>), accio_proto::handshake::HandshakeError> {
    let mut step = ServerHandshake::begin(dialect);
    let mut input: &[u8] = &[];
    let mut pieces = pieces.iter();
    loop {
        match step {
            ServerStep::Wait { handshake, .. } => match pieces.next() {
                Some(piece) => {
                    input = piece;
                    step = handshake.receive(piece)?;
                }
                None => {
                    input = &[];
                    step = handshake.finish()?;
                }
            },
            ServerStep::Established { dialect, kept, consumed, .. } => {
                let mut content = [kept, &input[consumed..]].concat();
                pieces.for_each(|piece| content.extend_from_slice(piece));
                return Ok((dialect, content));
            }
        }
    }
}
