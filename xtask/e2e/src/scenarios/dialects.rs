//! Every dialect with every server mode, and files that look like a handshake.

use std::thread;
use std::time::Duration;

use crate::runner::{Scenario, waits, works};
use accio_harness::context::{Context, ensure_success};
use accio_harness::payload;
use accio_harness::peer::{Dialect, End, FIRST, GREETING, Listener, SECOND, SOON, side_by_side};
use accio_harness::verdict::{During, Verdict, ensure_eq};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("dialects/server", "accio-server: every mode and each dialect that it accepts", server),
    works("dialects/server-s", "server-s: every mode and each dialect that it accepts", server_s),
    works(
        "dialects/client",
        "the client sends exactly the handshake's bytes, none too early",
        client,
    ),
    works(
        "dialects/pairs",
        "the client with both servers in every compatible pair of modes",
        pairs,
    ),
    works("dialects/prefixes", "auto keeps a file that starts with part of a handshake", prefixes),
    works("dialects/lookalikes", "complete handshake lines as content, in every mode", lookalikes),
    works("dialects/lookalikes-client", "the same files, sent by the client", lookalikes_client),
    waits("dialects/chunks", "a handshake byte by byte, or in one piece with the content", chunks),
];

/// The server's modes and the dialects that each accepts.
const MODES: [(&[&str], &[Dialect]); 5] = [
    (&[], &Dialect::ALL),
    (&["--handshake", "auto"], &Dialect::ALL),
    (&["--handshake", "direct"], &[Dialect::Direct]),
    (&["--handshake", "accio"], &[Dialect::Direct, Dialect::Accio]),
    (&["--handshake", "confirm"], &[Dialect::Confirm]),
];

fn contents(context: &Context) -> [Vec<u8>; 5] {
    [vec![], b"x".to_vec(), GREETING.to_vec(), context.content(1, 500), context.content(2, 100_000)]
}

/// Returns the bytes that a server in this mode sends to a client of this dialect.
fn greetings(mode: &[&str], dialect: Dialect) -> &'static [u8] {
    match (mode, dialect) {
        ([.., "direct"], _) => b"",
        (_, Dialect::Confirm) => Dialect::Confirm.greetings(),
        _ => GREETING,
    }
}

fn server(context: &Context) -> Verdict {
    side_by_side(MODES, |(mode, dialects)| {
        let server = context.server(mode)?;
        let mut id = 0;
        for dialect in dialects {
            for content in contents(context) {
                id += 1;
                let place = || format!("{dialect:?}, server {mode:?}, {} bytes", content.len());
                let mut peer = server.connect()?;
                if *dialect == Dialect::Direct {
                    // A `direct` client neither waits for a greeting nor reads it.
                    peer.send(&content)?;
                    peer.fin()?;
                    let received = peer.receive_all(SOON)?;
                    let expected = (greetings(mode, *dialect).to_vec(), End::Fin);
                    ensure_eq("from the server", expected, received).during(place)?;
                } else {
                    peer.greet_as_client(*dialect).during(place)?;
                    peer.complete(&content).during(place)?;
                }
                // The server sends FIN after the commit, so the file is there.
                payload::ensure_holds(&server.path(id), &content).during(place)?;
            }
        }
        server.expect_only(1..=id)?;
        server.stop()
    })
}

fn server_s(context: &Context) -> Verdict {
    side_by_side(MODES, |(mode, dialects)| {
        let server = context.server_s(mode)?;
        let mut lines = Vec::new();
        for dialect in dialects {
            for content in contents(context) {
                let place = || format!("{dialect:?}, server-s {mode:?}, {} bytes", content.len());
                let mut peer = server.connect()?;
                peer.greet_as_client(match (mode, dialect) {
                    ([.., "direct"], _) => Dialect::Direct,
                    (_, Dialect::Direct) => Dialect::Accio,
                    (_, dialect) => *dialect,
                })
                .during(place)?;
                peer.complete(&content).during(place)?;
                lines.push(content.len().to_string());
                server.expect_line(lines.len() - 1, &content.len().to_string()).during(place)?;
            }
        }
        server.stop_after(&lines.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

fn client(context: &Context) -> Verdict {
    let explicit = Dialect::ALL.map(|dialect| (vec!["--handshake", dialect.name()], dialect));
    let all = explicit.into_iter().chain([(vec![], Dialect::Accio)]);
    side_by_side(all, |(flags, dialect)| {
        for content in contents(context) {
            let listener = Listener::bind()?;
            let file = context.file(&content)?;
            let mut client = context.client("127.0.0.1", listener.port(), &file, &flags)?;
            let mut peer = listener.accept()?;
            let quiet = Duration::from_millis(60);
            let mut script = || {
                if dialect != Dialect::Direct {
                    peer.expect_silence(quiet)?;
                    peer.send(GREETING)?;
                }
                if dialect == Dialect::Confirm {
                    peer.expect(FIRST)?;
                    peer.expect_silence(quiet)?;
                    peer.send(GREETING)?;
                    peer.expect(SECOND)?;
                }
                let (received, end) = peer.receive_all(SOON)?;
                ensure_eq("the end", End::Fin, end)?;
                ensure_eq("content", payload::describe(&content), payload::describe(&received))?;
                ensure_eq("all of the content", true, content == received)
            };
            script().during(|| format!("{dialect:?}, client {flags:?}"))?;
            drop(peer);
            let exit = client.wait(SOON)?;
            ensure_success(&client, exit)?;
        }
        Ok(())
    })
}

fn pairs(context: &Context) -> Verdict {
    let file = context.large_file(7, 3_000_001)?;
    side_by_side(MODES, |(mode, dialects)| {
        let server = context.server(mode)?;
        let server_s = context.server_s(mode)?;
        for (index, dialect) in dialects.iter().enumerate() {
            let place = || format!("client {dialect:?}, server {mode:?}");
            let flags = ["--handshake", dialect.name()];
            context.send(server.port, &file, &flags).during(place)?;
            payload::ensure_same(&file, &server.path(index + 1)).during(place)?;
            context.send(server_s.port, &file, &flags).during(place)?;
            server_s.expect_line(index, "3000001").during(place)?;
        }
        server.stop()?;
        server_s.stop_after(&vec!["3000001"; dialects.len()])
    })
}

fn prefixes(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let server_s = context.server_s(&[])?;
    let lines = Dialect::Confirm.confirmations();
    let mut id = 0;
    let mut counts = Vec::new();
    for length in 0..lines.len() {
        for tail in [&b""[..], b"?", b"accio\r\n"] {
            id += 1;
            let content = [&lines[..length], tail].concat();
            let place = || format!("a file that is {}", payload::describe(&content));
            // After the first confirmation the server greets again, unless content in the same
            // read shows that the client does not wait for the second greeting.
            let again = if content.starts_with(FIRST) && lines.starts_with(&content) {
                GREETING
            } else {
                b""
            };
            for mut peer in [server.connect()?, server_s.connect()?] {
                peer.greet_as_client(Dialect::Accio).during(place)?;
                peer.send(&content)?;
                peer.fin()?;
                let received = peer.receive_all(SOON)?;
                let expected = (again.to_vec(), End::Fin);
                ensure_eq("from the server", expected, received).during(place)?;
            }
            payload::ensure_holds(&server.path(id), &content).during(place)?;
            counts.push(content.len().to_string());
        }
    }
    server.expect_only(1..=id)?;
    server.stop()?;
    server_s.stop_after(&counts.iter().map(String::as_str).collect::<Vec<_>>())
}

fn lookalikes(context: &Context) -> Verdict {
    let both = [Dialect::Confirm.confirmations(), b"more"].concat();
    for (mode, dialect, content) in [
        (&["--handshake", "accio"][..], Dialect::Accio, &both[..]),
        (&["--handshake", "direct"], Dialect::Direct, &both),
        (&["--handshake", "confirm"], Dialect::Confirm, &both),
        (&[], Dialect::Confirm, &both),
        // `auto` takes these bytes for a handshake, because they are one.
        (&[], Dialect::Accio, b"more"),
    ] {
        let place = || format!("{dialect:?}, server {mode:?}");
        let server = context.server(mode)?;
        let mut peer = server.connect()?;
        peer.greet_as_client(dialect).during(place)?;
        peer.send(&both)?;
        peer.fin()?;
        peer.expect_end(End::Fin).during(place)?;
        payload::ensure_holds(&server.path(1), content).during(place)?;
        server.stop()?;
        let server_s = context.server_s(mode)?;
        let mut peer = server_s.connect()?;
        peer.greet_as_client(dialect).during(place)?;
        peer.send(&both)?;
        peer.fin()?;
        peer.expect_end(End::Fin).during(place)?;
        server_s.stop_after(&[&content.len().to_string()]).during(place)?;
    }
    Ok(())
}

fn lookalikes_client(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let body = context.content(3, 2_000_000);
    let partial = [FIRST, &SECOND[..21]].concat();
    let mut id = 0;
    for start in [GREETING, &FIRST[..14], FIRST, &partial] {
        for content in [start.to_vec(), [start, &body].concat()] {
            let place = || format!("a file that is {}", payload::describe(&content));
            let file = context.file(&content)?;
            for flags in [&[][..], &["--handshake", "confirm"], &["--handshake", "direct"]] {
                id += 1;
                context.send(server.port, &file, flags).during(place)?;
                payload::ensure_holds(&server.path(id), &content)
                    .during(place)
                    .during(|| format!("client {flags:?}"))?;
            }
        }
    }
    server.stop()
}

fn chunks(context: &Context) -> Verdict {
    let content = b"accio\r\nconfirm-accio\r\ncontent";
    let wire = [FIRST, SECOND, content].concat();
    side_by_side([&[][..], &["--handshake", "confirm"]], |mode| {
        let server = context.server(mode)?;
        let server_s = context.server_s(mode)?;
        // One piece, without waiting for the second greeting; byte by byte; cut once, at every
        // byte.
        let one: Vec<usize> = vec![wire.len()];
        let all: Vec<usize> = vec![1; wire.len()];
        let cuts = (1..wire.len()).map(|cut| vec![cut, wire.len() - cut]);
        for (index, pieces) in [one, all].into_iter().chain(cuts).enumerate() {
            let place = || format!("in pieces of {pieces:?}, server {mode:?}");
            let gap = Duration::from_millis(if pieces.len() > 2 { 10 } else { 2 });
            let mut peers = [server.connect()?, server_s.connect()?];
            let mut rest = &wire[..];
            for length in &pieces {
                let (piece, after) = rest.split_at(*length);
                rest = after;
                for peer in &mut peers {
                    peer.send(piece)?;
                }
                thread::sleep(gap);
            }
            for mut peer in peers {
                peer.fin()?;
                let received = peer.receive_all(SOON)?;
                let expected = (Dialect::Confirm.greetings().to_vec(), End::Fin);
                ensure_eq("from the server", expected, received).during(place)?;
            }
            payload::ensure_holds(&server.path(index + 1), content).during(place)?;
            server_s.expect_line(index, &content.len().to_string()).during(place)?;
        }
        server.stop()
    })
}
