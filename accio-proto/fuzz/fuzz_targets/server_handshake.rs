#![no_main]

use accio_proto::handshake::{ServerHandshake, ServerStep};
use accio_proto::{Dialect, ServerDialect};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/simulation/oracle.rs"]
#[expect(dead_code, reason = "what is sent is for the tests to check")]
mod oracle;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let dialect = match input.0 % 4 {
        0 => ServerDialect::Auto,
        number => ServerDialect::Only(Dialect::ALL[usize::from(number) - 1]),
    };
    let wire = input.1.concat();
    let end = run(dialect, &input.1);
    let expected = oracle::expect(dialect, &wire).established;
    assert_eq!(end, expected.map(|(dialect, content)| (dialect, content.to_vec())));
});

fn run(
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
