//! Properties of both handshakes: the result does not depend on how the bytes are divided or
//! interleaved.

use std::collections::VecDeque;

use accio_proto::handshake::{
    ClientHandshake, ClientStep, HandshakeError, ServerHandshake, ServerStep,
};
use accio_proto::{Dialect, ServerDialect};
use proptest::prelude::*;

#[path = "../simulation/oracle.rs"]
mod oracle;

const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";

const SERVERS: [ServerDialect; 4] = [
    ServerDialect::Auto,
    ServerDialect::Only(Dialect::Direct),
    ServerDialect::Only(Dialect::Accio),
    ServerDialect::Only(Dialect::Confirm),
];

/// The server's side of a connection: its handshake and the results.
struct Server {
    handshake: Option<ServerHandshake>,
    dialect: Option<Dialect>,
    content: Vec<u8>,
    sent: Vec<u8>,
}

impl Server {
    fn begin(dialect: ServerDialect) -> Self {
        let mut server =
            Server { handshake: None, dialect: None, content: Vec::new(), sent: Vec::new() };
        server.take(ServerHandshake::begin(dialect), &[]);
        server
    }

    fn receive(&mut self, input: &[u8]) -> Result<(), HandshakeError> {
        match self.handshake {
            Some(handshake) => self.take(handshake.receive(input)?, input),
            None => self.content.extend_from_slice(input),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), HandshakeError> {
        if let Some(handshake) = self.handshake {
            self.take(handshake.finish()?, &[]);
            assert!(self.handshake.is_none(), "a FIN decides");
        }
        Ok(())
    }

    fn take(&mut self, step: ServerStep, input: &[u8]) {
        match step {
            ServerStep::Wait { send, handshake } => {
                self.sent.extend_from_slice(send);
                self.handshake = Some(handshake);
            }
            ServerStep::Established { send, dialect, kept, consumed } => {
                self.sent.extend_from_slice(send);
                self.handshake = None;
                self.dialect = Some(dialect);
                self.content.extend_from_slice(kept);
                self.content.extend_from_slice(&input[consumed..]);
            }
        }
    }
}

/// The client's side of a connection.
struct Client {
    handshake: Option<ClientHandshake>,
    sent: Vec<u8>,
}

impl Client {
    fn begin(dialect: Dialect) -> Self {
        let mut client = Client { handshake: None, sent: Vec::new() };
        client.take(ClientHandshake::begin(dialect));
        client
    }

    fn receive(&mut self, input: &[u8]) -> Result<(), HandshakeError> {
        if let Some(handshake) = self.handshake {
            self.take(handshake.receive(input)?);
        }
        Ok(())
    }

    fn take(&mut self, step: ClientStep) {
        let (send, handshake) = match step {
            ClientStep::Wait { send, handshake } => (send, Some(handshake)),
            ClientStep::Established { send, .. } => (send, None),
        };
        self.sent.extend_from_slice(send);
        self.handshake = handshake;
    }
}

fn servers() -> impl Strategy<Value = ServerDialect> {
    prop::sample::select(SERVERS.to_vec())
}

/// Returns files, most of which begin like the confirmations or nearly so.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let tail = prop::collection::vec(any::<u8>(), 0..40);
    let lengths = 0..=CONFIRMATIONS.len();
    prop_oneof![
        1 => tail.clone(),
        4 => (lengths, tail, prop::option::of(0..64usize)).prop_map(|(length, tail, wrong)| {
            let mut file = [&CONFIRMATIONS[..length], &tail].concat();
            if let Some(wrong) = wrong && let Some(byte) = file.get_mut(wrong) {
                *byte ^= 1;
            }
            file
        }),
    ]
}

/// Sizes of pieces, used cyclically; a piece may be empty.
fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![0..4usize, 0..50usize], 1..12)
        .prop_filter("some piece is not empty", |sizes| sizes.iter().any(|size| *size > 0))
}

/// Removes up to `size` bytes from the front.
fn pull(queue: &mut VecDeque<u8>, size: usize) -> Vec<u8> {
    let size = size.min(queue.len());
    queue.drain(..size).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// For any pieces, the server's result is that of the oracle for the whole input.
    #[test]
    fn any_chunking_yields_the_same_address(dialect in servers(), wire in files(), sizes in sizes()) {
        let mut server = Server::begin(dialect);
        let mut sizes = sizes.into_iter().cycle();
        let mut rest = VecDeque::from(wire.clone());
        let mut end = Ok(());
        while end.is_ok() && !rest.is_empty() {
            let piece = pull(&mut rest, sizes.next().unwrap());
            end = server.receive(&piece);
        }
        let end = end.and_then(|()| server.finish());

        let expected = oracle::expect(dialect, &wire);
        match expected.established {
            Ok((dialect, content)) => {
                prop_assert_eq!(end, Ok(()));
                prop_assert_eq!(server.dialect, Some(dialect));
                prop_assert_eq!(&server.content, content);
                prop_assert!(expected.allows(&server.sent), "{:?}", server.sent);
            }
            Err(error) => {
                prop_assert_eq!(end, Err(error));
                prop_assert!(server.content.is_empty());
                prop_assert!(expected.sent.starts_with(&server.sent));
            }
        }
    }

    /// The client never replies early, and its replies do not depend on the pieces.
    #[test]
    fn the_clients_replies_do_not_depend_on_the_chunking(
        dialect in prop::sample::select(Dialect::ALL.to_vec()),
        length in 0..=14usize,
        wrong in prop::option::of(0..14usize),
        sizes in sizes(),
    ) {
        let mut wire = b"accio\r\naccio\r\n"[..length].to_vec();
        if let Some(byte) = wrong.and_then(|wrong| wire.get_mut(wrong)) {
            *byte ^= 0x20;
        }
        let good = wrong.map_or(length, |wrong| wrong.min(length));
        let due = match dialect {
            Dialect::Direct => 0,
            Dialect::Accio => 7,
            Dialect::Confirm => 14,
        };

        let mut client = Client::begin(dialect);
        let mut rest = VecDeque::from(wire.clone());
        let mut sizes = sizes.into_iter().cycle();
        let mut seen = 0;
        let mut end = Ok(());
        while end.is_ok() && !rest.is_empty() {
            let piece = pull(&mut rest, sizes.next().unwrap());
            seen += piece.len();
            end = client.receive(&piece);
            if end.is_ok() {
                let answered = match dialect {
                    Dialect::Confirm if seen >= 14 => CONFIRMATIONS,
                    Dialect::Confirm if seen >= 7 => &CONFIRMATIONS[..15],
                    _ => &[],
                };
                prop_assert_eq!(&client.sent, answered, "after {} bytes", seen);
                prop_assert_eq!(client.handshake.is_none(), seen >= due);
            }
        }
        if good < due.min(length) {
            let at = good % 7;
            let start = good - at;
            let got = wire[start..=good].to_vec();
            prop_assert_eq!(end, Err(HandshakeError::Mismatch { expected: b"accio\r\n", got }));
        } else {
            prop_assert_eq!(end, Ok(()));
        }
    }

    /// Both sides together: bytes of both directions arrive in any pieces and any order.
    #[test]
    fn any_interleaving_of_both_sides_yields_the_same(
        server_dialect in servers(),
        client_dialect in prop::sample::select(Dialect::ALL.to_vec()),
        file in files(),
        moves in prop::collection::vec((0..3u8, 0..50usize), 1..24)
            // Every kind of move continues, so that no side waits forever.
            .prop_map(|moves| [moves, vec![(0, 1), (1, 1), (2, 1)]].concat()),
    ) {
        let mut server = Server::begin(server_dialect);
        let mut client = Client::begin(client_dialect);
        let (mut to_client, mut to_server) = (VecDeque::new(), VecDeque::new());
        let (mut server_said, mut client_said) = (0, 0);
        let mut file_left = VecDeque::from(file.clone());
        let mut wire = Vec::new();
        let (mut client_end, mut server_end) = (Ok(()), Ok(()));
        let mut quiet = 0;
        for (kind, size) in moves.iter().copied().cycle() {
            to_client.extend(server.sent[server_said..].iter().copied());
            server_said = server.sent.len();
            to_server.extend(client.sent[client_said..].iter().copied());
            wire.extend_from_slice(&client.sent[client_said..]);
            client_said = client.sent.len();

            let moved = match kind {
                0 => {
                    let piece = pull(&mut to_client, size);
                    client_end = client_end.and_then(|()| client.receive(&piece));
                    piece.len()
                }
                1 => {
                    let piece = pull(&mut to_server, size);
                    server_end = server_end.and_then(|()| server.receive(&piece));
                    piece.len()
                }
                // The client sends content as soon as it may, and not before.
                _ if client.handshake.is_none() => {
                    let piece = pull(&mut file_left, size);
                    to_server.extend(piece.iter().copied());
                    wire.extend_from_slice(&piece);
                    piece.len()
                }
                _ => 0,
            };
            quiet = if moved == 0 { quiet + 1 } else { 0 };
            if quiet > moves.len() {
                break;
            }
        }
        prop_assert_eq!(client_end, Ok(()), "the greeting of this server is never wrong");

        let established = client.handshake.is_none();
        let agree = match (server_dialect, client_dialect) {
            // A client that waits for a greeting sends nothing if the server sends none.
            (ServerDialect::Only(Dialect::Direct), Dialect::Accio | Dialect::Confirm)
            | (ServerDialect::Only(Dialect::Accio), Dialect::Confirm) => {
                prop_assert!(!established && file_left.len() == file.len());
                return Ok(());
            }
            (ServerDialect::Only(Dialect::Confirm), client) => client == Dialect::Confirm,
            _ => true,
        };
        prop_assert!(established && file_left.is_empty());
        let end = server_end.and_then(|()| server.finish());
        let expected = oracle::expect(server_dialect, &wire);
        let looks_confirmed = client_dialect != Dialect::Confirm && file.starts_with(CONFIRMATIONS);
        match expected.established {
            Ok((dialect, content)) => {
                prop_assert_eq!(end, Ok(()));
                prop_assert_eq!(server.dialect, Some(dialect));
                prop_assert_eq!(&server.content, content);
                prop_assert!(expected.allows(&server.sent), "{:?}", server.sent);
            }
            Err(error) => {
                prop_assert!(!agree, "matching dialects must not fail");
                prop_assert_eq!(end, Err(error));
            }
        }
        if agree && !(looks_confirmed && server_dialect == ServerDialect::Auto) {
            prop_assert_eq!(server.content, file, "every content byte, no handshake byte");
        }
    }
}

/// Tests every prefix of the confirmations as a file, split at every position, with every pair of
/// dialects that fits.
#[test]
fn files_that_begin_like_a_confirmation_arrive_completely() {
    for length in 0..CONFIRMATIONS.len() {
        for tail in [&b""[..], b"x", b"\r\n", b"confirm-accio\r\n"] {
            let file = [&CONFIRMATIONS[..length], tail].concat();
            if file.starts_with(CONFIRMATIONS) {
                continue;
            }
            let confirmed = [CONFIRMATIONS, &file].concat();
            let pairs = [
                (ServerDialect::Auto, &file, Dialect::Accio),
                (ServerDialect::Auto, &confirmed, Dialect::Confirm),
                (Dialect::Confirm.into(), &confirmed, Dialect::Confirm),
                (Dialect::Accio.into(), &file, Dialect::Accio),
                (Dialect::Direct.into(), &file, Dialect::Direct),
            ];
            for (dialect, wire, spoken) in pairs {
                for cut in 0..=wire.len() {
                    let mut server = Server::begin(dialect);
                    server.receive(&wire[..cut]).unwrap();
                    server.receive(&wire[cut..]).unwrap();
                    server.finish().unwrap();
                    assert_eq!(server.dialect, Some(spoken));
                    assert_eq!(server.content, file, "{dialect}, cut at {cut}");
                }
            }
        }
    }
}

/// With the dialect `confirm` only, a mismatch and a FIN within the handshake are errors; a FIN
/// before any byte is an empty file.
#[test]
fn explicit_confirm_is_strict() {
    let confirm = ServerDialect::Only(Dialect::Confirm);
    let mut server = Server::begin(confirm);
    assert_eq!(server.finish(), Ok(()));
    assert_eq!((server.dialect, &server.content[..]), (Some(Dialect::Confirm), &b""[..]));
    for length in 0..CONFIRMATIONS.len() {
        for wrong in 0..=255u8 {
            let mut server = Server::begin(confirm);
            server.receive(&CONFIRMATIONS[..length]).unwrap();
            let end = server.receive(&[wrong]);
            assert_eq!(end.is_err(), wrong != CONFIRMATIONS[length], "{length} {wrong}");
        }
        let mut server = Server::begin(confirm);
        server.receive(&CONFIRMATIONS[..length]).unwrap();
        assert_eq!(server.finish().is_err(), length > 0, "{length}");
    }
}
