//! The client with slow, silent and broken servers: it waits as long as it must, and no longer.

use std::fs::File;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::runner::{Scenario, waits, works};
use accio_harness::context::{Context, ensure_failure, ensure_success};
use accio_harness::payload;
use accio_harness::peer::{
    Dialect, End, FIRST, GREETING, Listener, Peer, SECOND, SOON, read, side_by_side,
};
use accio_harness::process::Process;
use accio_harness::verdict::{During, Verdict, ensure, ensure_eq, ensure_took, ensure_within};

pub(super) static SCENARIOS: &[Scenario] = &[
    works(
        "client/split-greeting",
        "accepts a greeting in two pieces, split at every byte",
        split_greeting,
    ),
    waits(
        "client/piecemeal",
        "accepts a greeting byte by byte, sends nothing before its end",
        piecemeal,
    ),
    waits("client/late-greeting", "accepts a greeting that is complete after 9 s", late),
    waits("client/drip", "gives up after 10 s in total if the greeting comes byte by byte", drip),
    waits("client/silent", "gives up on a silent server after 10 s, in each dialect", silent),
    works(
        "client/wrong-greeting",
        "fails immediately on wrong bytes in the handshake",
        wrong_greeting,
    ),
    works(
        "client/closed-handshake",
        "fails immediately if the connection ends in the handshake",
        closed,
    ),
    waits("client/zero-window", "gives up on a server that stops reading after 10 s", zero_window),
    waits("client/slow-reader", "does not give up on a server that reads slowly", slow_reader),
    works("client/reset-mid-file", "fails immediately on a reset mid-file", reset_mid_file),
    waits("client/fin-mid-file", "fails if the server closes mid-file", fin_mid_file),
    waits(
        "client/never-closes",
        "without the server's FIN: success after 10 s, with a note",
        no_fin,
    ),
    waits("client/never-takes", "fails if bytes are never acknowledged", never_takes),
    waits("client/reset-at-the-end", "fails on a reset instead of the server's FIN", reset_at_end),
];

const LOW: Duration = Duration::from_secs(10);
pub(super) const HIGH: Duration = Duration::from_millis(10_500);
/// Time limit for an immediate reaction, on a busy machine.
pub(super) const AT_ONCE: Duration = Duration::from_secs(2);

/// Starts a client and accepts its connection.
fn connected(
    context: &Context,
    listener: &Listener,
    file: &std::path::Path,
    flags: &[&str],
) -> Verdict<(Process, Peer)> {
    let client = context.client("127.0.0.1", listener.port(), file, flags)?;
    let peer = listener.accept()?;
    Ok((client, peer))
}

/// Creates a sparse file that is larger than any socket buffer.
fn sparse(context: &Context) -> Verdict<PathBuf> {
    let path = context.fresh("sparse");
    File::create(&path)?.set_len(256 << 20)?;
    Ok(path)
}

/// Receives the whole file and closes the connection; the client must succeed.
fn accept_all(mut client: Process, mut peer: Peer, content: &[u8]) -> Verdict {
    let (received, end) = peer.receive_all(SOON)?;
    ensure_eq("the client's end", End::Fin, end)?;
    ensure(received == content, payload::describe(content), || payload::describe(&received))?;
    drop(peer);
    let exit = client.wait(SOON)?;
    ensure_success(&client, exit)
}

fn split_greeting(context: &Context) -> Verdict {
    let content = context.content(1, 500);
    let file = context.file(&content)?;
    side_by_side(1..GREETING.len(), |cut| {
        let script = || {
            let listener = Listener::bind()?;
            let flags = ["--handshake", "confirm"];
            let (client, mut peer) = connected(context, &listener, &file, &flags)?;
            for answer in [FIRST, SECOND] {
                peer.send(&GREETING[..cut])?;
                peer.expect_silence(Duration::from_millis(100))?;
                peer.send(&GREETING[cut..])?;
                peer.expect(answer)?;
            }
            accept_all(client, peer, &content)
        };
        script().during(|| format!("cut after {cut} bytes"))
    })
}

fn piecemeal(context: &Context) -> Verdict {
    let content = context.content(1, 5_000);
    let file = context.file(&content)?;
    side_by_side([Dialect::Accio, Dialect::Confirm], |dialect| {
        let listener = Listener::bind()?;
        let flags = ["--handshake", dialect.name()];
        let (client, mut peer) = connected(context, &listener, &file, &flags)?;
        let answers = if dialect == Dialect::Accio { &[&b""[..]][..] } else { &[FIRST, SECOND] };
        for answer in answers {
            for byte in GREETING.chunks(1) {
                peer.expect_silence(Duration::from_millis(200)).during(|| dialect.name())?;
                peer.send(byte)?;
            }
            peer.expect(answer).during(|| dialect.name())?;
        }
        accept_all(client, peer, &content)
    })
}

fn late(context: &Context) -> Verdict {
    let content = context.content(1, 500);
    let file = context.file(&content)?;
    side_by_side([Dialect::Accio, Dialect::Confirm], |dialect| {
        let listener = Listener::bind()?;
        let flags = ["--handshake", dialect.name()];
        let (client, mut peer) = connected(context, &listener, &file, &flags)?;
        peer.expect_silence(Duration::from_secs(4))?;
        peer.send(&GREETING[..3])?;
        peer.expect_silence(Duration::from_secs(5))?;
        peer.send(&GREETING[3..])?;
        if dialect == Dialect::Confirm {
            peer.expect(FIRST)?;
            peer.send(GREETING)?;
            peer.expect(SECOND)?;
        }
        accept_all(client, peer, &content)
    })
}

/// Returns a fault unless the client fails 10 s after its start or after `connected`.
pub(super) fn expect_given_up(mut client: Process, connected: Instant, high: Duration) -> Verdict {
    ensure_failure(&mut client, Duration::from_secs(14), &[])?;
    let ended = client.wait(SOON)?.at;
    ensure_took("giving up", (client.started(), connected), ended, LOW, high)
}

fn drip(context: &Context) -> Verdict {
    let file = context.file(b"never to be sent")?;
    side_by_side([Dialect::Accio, Dialect::Confirm], |dialect| {
        let listener = Listener::bind()?;
        let flags = ["--handshake", dialect.name()];
        let (client, mut peer) = connected(context, &listener, &file, &flags)?;
        let connected = Instant::now();
        let gap = Duration::from_millis(1_900);
        if dialect == Dialect::Confirm {
            // The first greeting comes early, but must not restart the timeout.
            peer.expect_silence(gap)?;
            peer.send(GREETING)?;
            peer.expect(FIRST)?;
        }
        // Send as many bytes as fit into ten seconds, which are not all.
        for byte in GREETING.chunks(1) {
            if connected.elapsed() + gap >= LOW {
                break;
            }
            peer.expect_silence(gap).during(|| dialect.name())?;
            peer.send(byte)?;
        }
        expect_given_up(client, connected, HIGH).during(|| dialect.name())?;
        ensure_eq("content bytes sent", 0, peer.end(SOON)?.1)
    })
}

fn silent(context: &Context) -> Verdict {
    let file = context.file(b"never to be sent")?;
    side_by_side([Dialect::Accio, Dialect::Confirm], |dialect| {
        let listener = Listener::bind()?;
        let flags = ["--handshake", dialect.name()];
        let (client, mut peer) = connected(context, &listener, &file, &flags)?;
        let connected = Instant::now();
        expect_given_up(client, connected, HIGH).during(|| dialect.name())?;
        ensure_eq("bytes sent", 0, peer.end(SOON)?.1)
    })
}

fn wrong_greeting(context: &Context) -> Verdict {
    let file = context.file(b"never to be sent")?;
    let http = &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..];
    let mut greetings = vec![http.to_vec(), b"ACCIO\r\n".to_vec(), b"accio\n".to_vec()];
    greetings.push(b"\x1b[2J\x07 not for your terminal".to_vec());
    greetings.extend((0..GREETING.len()).map(|at| {
        let mut wrong = GREETING[..=at].to_vec();
        wrong[at] ^= 0x20;
        wrong
    }));
    side_by_side(greetings, |wrong| {
        for second in [false, true] {
            let listener = Listener::bind()?;
            let flags = ["--handshake", if second { "confirm" } else { "accio" }];
            let (mut client, mut peer) = connected(context, &listener, &file, &flags)?;
            if second {
                peer.send(GREETING)?;
                peer.expect(FIRST)?;
            }
            peer.send(&wrong)?;
            let sent = Instant::now();
            let place = || format!("the server sends {}", payload::describe(&wrong));
            ensure_failure(&mut client, SOON, &[]).during(place)?;
            ensure_within("giving up", sent, AT_ONCE).during(place)?;
            ensure_eq("content bytes sent", 0, peer.end(SOON)?.1).during(place)?;
            let text = client.stderr().text();
            let escaped = text.trim_end().chars().all(|c| !c.is_control());
            ensure(escaped, "the server's bytes escaped", || format!("{text:?}"))?;
        }
        Ok(())
    })
}

fn closed(context: &Context) -> Verdict {
    let file = context.file(b"never to be sent")?;
    let cases = [0, 3, 6].into_iter().flat_map(|length| [(length, false), (length, true)]);
    side_by_side(cases, |(length, reset)| {
        let place = || format!("{} after {length} bytes", if reset { "reset" } else { "FIN" });
        let listener = Listener::bind()?;
        let (mut client, mut peer) = connected(context, &listener, &file, &[])?;
        peer.send(&GREETING[..length])?;
        let sent = Instant::now();
        if reset {
            peer.reset()?;
        } else {
            drop(peer);
        }
        ensure_failure(&mut client, SOON, &[]).during(place)?;
        ensure_within("giving up", sent, AT_ONCE).during(place)
    })
}

fn zero_window(context: &Context) -> Verdict {
    let file = sparse(context)?;
    side_by_side([&[][..], &["--without", "sendfile"]], |flags| {
        let listener = Listener::bind()?;
        let (client, mut peer) = connected(context, &listener, &file, flags)?;
        peer.send(GREETING)?;
        // For a moment, until the buffers are full, there is progress.
        let margin = Duration::from_millis(500);
        expect_given_up(client, Instant::now(), HIGH + margin).during(|| format!("{flags:?}"))
    })
}

fn slow_reader(context: &Context) -> Verdict {
    let content = context.content(1, 4 << 20);
    let file = context.file(&content)?;
    let listener = Listener::with(8, Some(64 << 10))?;
    let (client, mut peer) = connected(context, &listener, &file, &["--timeout", "2"])?;
    peer.send(GREETING)?;
    let mut received = Vec::new();
    let mut buffer = vec![0; 300_000];
    for _ in 0..6 {
        // The file is much larger than the buffers, so these are full all the time.
        thread::sleep(Duration::from_millis(900));
        let until = Instant::now() + Duration::from_millis(100);
        let mut drained = 0;
        while drained < 300_000 && Instant::now() < until {
            let count = read(peer.stream(), &mut buffer)?;
            received.extend_from_slice(&buffer[..count]);
            drained += count;
            ensure(count > 0, "more content", || "FIN before the end of the file".into())?;
        }
    }
    ensure(received.len() < content.len(), "a reader slower than the file", || {
        "the whole file has arrived".into()
    })?;
    accept_all(client, peer, &content[received.len()..])
}

fn reset_mid_file(context: &Context) -> Verdict {
    let file = sparse(context)?;
    let kinds = Dialect::ALL.into_iter().flat_map(|dialect| [(dialect, false), (dialect, true)]);
    side_by_side(kinds, |(dialect, portable)| {
        let listener = Listener::bind()?;
        let mut flags = vec!["--handshake", dialect.name()];
        flags.extend(["--without", "sendfile"].iter().take(if portable { 2 } else { 0 }));
        let (mut client, mut peer) = connected(context, &listener, &file, &flags)?;
        peer.greet_as_server(dialect)?;
        peer.receive(1 << 20, SOON)?;
        peer.reset()?;
        let sent = Instant::now();
        ensure_failure(&mut client, SOON, &[])?;
        ensure_within("giving up", sent, AT_ONCE)
    })
}

fn fin_mid_file(context: &Context) -> Verdict {
    let file = sparse(context)?;
    // Either closed with unread bytes, which causes a reset, or half-closed and not read any more.
    side_by_side([true, false], |entirely| {
        let listener = Listener::bind()?;
        let (mut client, mut peer) = connected(context, &listener, &file, &[])?;
        peer.send(GREETING)?;
        peer.receive(1 << 20, SOON)?;
        let kept = if entirely {
            drop(peer);
            None
        } else {
            peer.fin()?;
            Some(peer)
        };
        let ended = ensure_failure(&mut client, Duration::from_secs(12), &[]);
        drop(kept);
        ended.during(|| if entirely { "closed" } else { "half closed" })
    })
}

fn no_fin(context: &Context) -> Verdict {
    // Elsewhere the client does not know whether its bytes were acknowledged.
    super::require_linux_programs(context)?;
    let content = context.content(1, 50_000);
    let file = context.file(&content)?;
    let listener = Listener::bind()?;
    let (mut client, mut peer) = connected(context, &listener, &file, &[])?;
    peer.send(GREETING)?;
    let (received, end) = peer.receive_all(SOON)?;
    let ended = Instant::now();
    ensure_eq("the client's end", End::Fin, end)?;
    ensure(received == content, payload::describe(&content), || payload::describe(&received))?;
    let exit = client.wait(Duration::from_secs(14))?;
    ensure_success(&client, exit)?;
    let text = client.stderr().text();
    ensure(!text.trim().is_empty(), "a note on stderr", || format!("{text:?}"))?;
    let from = ended.checked_sub(Duration::from_millis(500)).unwrap_or(ended);
    ensure_took("waiting for the server's FIN", (from, ended), exit.at, LOW, HIGH)
}

fn never_takes(context: &Context) -> Verdict {
    let listener = Listener::with(8, Some(4 << 10))?;
    // Fits into the client's send buffer, but not into this side's receive buffer.
    let file = context.file(&context.content(1, 200_000))?;
    let (mut client, mut peer) = connected(context, &listener, &file, &["--timeout", "1.5"])?;
    peer.send(GREETING)?;
    ensure_failure(&mut client, Duration::from_secs(8), &[])?;
    drop(peer);
    Ok(())
}

fn reset_at_end(context: &Context) -> Verdict {
    let content = context.content(1, 50_000);
    let file = context.file(&content)?;
    let listener = Listener::bind()?;
    let (mut client, mut peer) = connected(context, &listener, &file, &[])?;
    peer.send(GREETING)?;
    let (received, end) = peer.receive_all(SOON)?;
    ensure_eq("the client's end", (End::Fin, content.len()), (end, received.len()))?;
    // The client is waiting for the confirmation now.
    thread::sleep(Duration::from_millis(200));
    peer.reset()?;
    let sent = Instant::now();
    ensure_failure(&mut client, SOON, &[])?;
    ensure_within("giving up", sent, AT_ONCE)
}
