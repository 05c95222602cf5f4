//! For any chunking, the client is established exactly when the greetings are complete, and never
//! replies early.

use accio_proto::Dialect;
use accio_proto::handshake::{ClientHandshake, ClientStep};

/// The input, made from the bytes of the fuzzer.
pub(crate) type Input = (u8, Vec<Vec<u8>>);

pub(crate) fn run(input: Input) {
    let dialect = Dialect::ALL[usize::from(input.0 % 3)];
    let due: &[u8] = match dialect {
        Dialect::Direct => b"",
        Dialect::Accio => b"accio\r\n",
        Dialect::Confirm => b"accio\r\naccio\r\n",
    };
    let (mut got, mut sent) = (Vec::new(), Vec::new());
    let mut step = ClientHandshake::begin(dialect);
    let mut pieces = input.1.iter();
    loop {
        match step {
            ClientStep::Established { send, .. } => {
                sent.extend_from_slice(send);
                assert!(got.starts_with(due), "established early");
                let all: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";
                assert_eq!(sent, if dialect == Dialect::Confirm { all } else { b"" });
                return;
            }
            ClientStep::Wait { send, handshake } => {
                sent.extend_from_slice(send);
                assert!(due.starts_with(&got) && got.len() < due.len(), "late, or a wrong byte");
                assert_eq!(sent.is_empty(), got.len() < 7);
                let Some(piece) = pieces.next() else { return };
                got.extend_from_slice(piece);
                match handshake.receive(piece) {
                    Ok(next) => step = next,
                    Err(_) => {
                        assert!(!got.starts_with(due) && !due.starts_with(&got));
                        return;
                    }
                }
            }
        }
    }
}
