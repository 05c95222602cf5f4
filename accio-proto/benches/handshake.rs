//! Benchmarks of the handshake: `cargo bench --package accio-proto`.

use accio_proto::handshake::{ClientHandshake, ClientStep, ServerHandshake, ServerStep};
use accio_proto::{Dialect, FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION, ServerDialect};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// The usual upload: the first bytes show that the file does not begin like a confirmation.
#[divan::bench]
fn server_sees_a_file(bencher: Bencher<'_, '_>) {
    bencher.bench(|| serve(ServerDialect::Auto, &[black_box(&[0x55; 1024])]));
}

/// Both confirmations, each in one piece.
#[divan::bench(args = [ServerDialect::Auto, ServerDialect::Only(Dialect::Confirm)])]
fn server_sees_confirmations(bencher: Bencher<'_, '_>, dialect: ServerDialect) {
    let pieces = [FIRST_CONFIRMATION, SECOND_CONFIRMATION];
    bencher.bench(|| serve(dialect, black_box(&pieces)));
}

/// The confirmations byte by byte, as from a slow or hostile client.
#[divan::bench]
fn server_sees_single_bytes(bencher: Bencher<'_, '_>) {
    let bytes = [FIRST_CONFIRMATION, SECOND_CONFIRMATION].concat();
    let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    bencher.bench(|| serve(ServerDialect::Auto, black_box(&pieces)));
}

/// The greetings, each in one piece.
#[divan::bench(args = [Dialect::Accio, Dialect::Confirm])]
fn client_sees_greetings(bencher: Bencher<'_, '_>, dialect: Dialect) {
    bencher.bench(|| connect(dialect, black_box(&[GREETING, GREETING])));
}

fn serve(dialect: ServerDialect, pieces: &[&[u8]]) -> Option<Dialect> {
    let mut step = Ok(ServerHandshake::begin(dialect));
    for piece in pieces {
        match step {
            Ok(ServerStep::Wait { handshake, .. }) => step = handshake.receive(piece),
            _ => break,
        }
    }
    match step {
        Ok(ServerStep::Established { dialect, .. }) => Some(dialect),
        _ => None,
    }
}

fn connect(dialect: Dialect, pieces: &[&[u8]]) -> bool {
    let mut step = Ok(ClientHandshake::begin(dialect));
    for piece in pieces {
        match step {
            Ok(ClientStep::Wait { handshake, .. }) => step = handshake.receive(piece),
            _ => break,
        }
    }
    matches!(step, Ok(ClientStep::Established { .. }))
}
