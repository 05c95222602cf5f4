//! After every failure the file is exactly `ERROR`.

use std::fs::File;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::runner::{Scenario, works};
use accio_harness::context::{Context, Server};
use accio_harness::payload;
use accio_harness::peer::{Dialect, End, FIRST, GREETING, Listener, SECOND, SOON};
use accio_harness::verdict::{During, Stop, Verdict, ensure};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("errors/reset", "a reset at any point leaves exactly ERROR", reset),
    works("errors/reset-server-s", "a reset at any point prints the line ERROR", reset_server_s),
    works("errors/reset-after-fin", "a reset after FIN does not damage the file", reset_after_fin),
    works(
        "errors/fin-in-handshake",
        "FIN within confirm is ERROR, before its first byte an empty file",
        fin,
    ),
    works("errors/wrong-handshake", "wrong bytes in confirm are ERROR immediately", wrong),
    works(
        "errors/killed-client",
        "a client killed mid-file resets the connection: ERROR",
        killed_client,
    ),
];

/// Returns the bytes that clients send before the reset, with a description.
fn beginnings(context: &Context) -> Vec<(&'static str, Vec<u8>)> {
    let both = [FIRST, SECOND].concat();
    vec![
        ("after the greeting", vec![]),
        ("within the first confirmation", FIRST[..5].to_vec()),
        ("after the first confirmation", FIRST.to_vec()),
        ("within the second confirmation", both[..30].to_vec()),
        ("after the handshake", both.clone()),
        ("after one byte", b"x".to_vec()),
        ("after 500 bytes", context.content(1, 500)),
        ("after 5 MiB", context.content(2, 5 << 20)),
        ("after 5 MiB in confirm", [both, context.content(3, 5 << 20)].concat()),
    ]
}

fn reset(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    server.connect()?.reset()?;
    server.expect_error(1).during(|| "immediately")?;
    let mut id = 1;
    for (place, wire) in beginnings(context) {
        // Repeat without and with time for the server to read the bytes before the reset.
        for pause in [Duration::ZERO, Duration::from_millis(50)] {
            id += 1;
            let mut peer = server.connect_greeted()?;
            peer.send(&wire)?;
            thread::sleep(pause);
            peer.reset()?;
            server.expect_error(id).during(|| place)?;
        }
    }
    server.connect_greeted()?.complete(b"unharmed")?;
    server.expect_file(id + 1, b"unharmed")?;
    server.expect_only(1..=id + 1)?;
    server.stop()
}

fn reset_server_s(context: &Context) -> Verdict {
    let server = context.server_s(&[])?;
    server.connect()?.reset()?;
    server.expect_line(0, "ERROR").during(|| "immediately")?;
    let mut lines = vec!["ERROR"];
    for (place, wire) in beginnings(context) {
        let mut peer = server.connect()?;
        peer.greet_as_client(Dialect::Accio)?;
        peer.send(&wire)?;
        peer.reset()?;
        server.expect_line(lines.len(), "ERROR").during(|| place)?;
        lines.push("ERROR");
    }
    let mut peer = server.connect()?;
    peer.greet_as_client(Dialect::Accio)?;
    peer.complete(b"unharmed")?;
    lines.push("8");
    server.stop_after(&lines)
}

fn reset_after_fin(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    for (index, length) in [0, 1, 500, 20_000].into_iter().enumerate() {
        let content = context.content(4, length);
        let mut peer = server.connect_greeted()?;
        peer.send(&content)?;
        peer.fin()?;
        peer.reset()?;
        server.expect_file(index + 1, &content).during(|| format!("{length} bytes"))?;
    }
    server.stop()
}

fn fin(context: &Context) -> Verdict {
    let server = context.server(&["--handshake", "confirm"])?;
    let lines = Dialect::Confirm.confirmations();
    server.connect_greeted()?.complete(b"").during(|| "after no byte")?;
    server.expect_file(1, b"")?;
    for length in 1..lines.len() {
        let place = || format!("FIN after {length} bytes of the handshake");
        let mut peer = server.connect_greeted()?;
        peer.send(&lines[..length])?;
        peer.fin()?;
        peer.expect_end(End::Reset).during(place)?;
        server.expect_error(length + 1).during(place)?;
    }
    server.connect()?.complete_confirm(b"")?;
    server.expect_file(lines.len() + 1, b"")?;
    server.expect_only(1..=lines.len() + 1)?;
    server.stop()
}

fn wrong(context: &Context) -> Verdict {
    let server = context.server(&["--handshake", "confirm"])?;
    let server_s = context.server_s(&["--handshake", "confirm"])?;
    let mut id = 0;
    let swapped = [SECOND, FIRST].concat();
    let short = [FIRST, &SECOND[..21], b"content without the blank line"].concat();
    let lines = Dialect::Confirm.confirmations();
    let mut wires = vec![b"a file without a handshake".to_vec(), swapped, short, FIRST.repeat(2)];
    wires.extend((0..lines.len()).map(|at| {
        let mut wire = lines.to_vec();
        wire[at] ^= 0x20;
        wire
    }));
    for wire in wires {
        let place = || format!("the client sends {}", payload::describe(&wire));
        for mut peer in [server.connect()?, server_s.connect()?] {
            peer.greet_as_client(Dialect::Accio)?;
            peer.send(&wire)?;
            // This side stays open: the server must not wait for its end.
            peer.expect_end(End::Reset).during(place)?;
        }
        id += 1;
        server.expect_error(id).during(place)?;
    }
    server.expect_only(1..=id)?;
    server.stop()?;
    server_s.stop_after(&vec!["ERROR"; id])
}

fn killed_client(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    // A sparse file; only its first bytes are read.
    let file = context.fresh("sparse");
    File::create(&file)?.set_len(1 << 30)?;
    let signals = [Signal::KILL, Signal::INT, Signal::TERM];
    for (index, signal) in signals.into_iter().enumerate() {
        relay_and_kill(context, &server, &file, signal).during(|| format!("{signal:?}"))?;
        server.expect_error(index + 1).during(|| format!("{signal:?}"))?;
    }
    server.expect_only(1..=signals.len())?;
    server.stop()
}

/// Relays 3 MiB from the client to the server, kills the client and relays how its connection ends.
fn relay_and_kill(
    context: &Context,
    server: &Server,
    file: &std::path::Path,
    signal: Signal,
) -> Verdict {
    let listener = Listener::bind()?;
    let mut client = context.client("127.0.0.1", listener.port(), file, &[])?;
    let mut from = listener.accept()?;
    let mut to = server.connect()?;
    to.expect(GREETING)?;
    from.send(GREETING)?;
    let mut buffer = vec![0; 3 << 20];
    (&mut from.stream()).read_exact(&mut buffer)?;
    (&mut to.stream()).write_all(&buffer)?;
    client.signal(signal)?;
    let exit = client.wait(SOON)?;
    ensure(!exit.status.success(), "a killed client not to succeed", || exit.describe())?;
    match from.end(SOON)?.0 {
        End::Reset => to.reset(),
        End::Fin => {
            Err(Stop::fault("a reset from the killed client", "FIN: the file looks complete"))
        }
        End::Open => Err(Stop::fault("a reset from the killed client", "nothing")),
    }
}
