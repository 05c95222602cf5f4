//! The servers' idle timeout: [10.0, 10.5] s after the last byte, never earlier or later.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::runner::{Scenario, waits};
use accio_harness::context::Context;
use accio_harness::peer::{self, Dialect, End, FIRST, GREETING, Peer, SECOND, side_by_side};
use accio_harness::verdict::{During, Verdict, ensure_eq, ensure_took};

pub(super) static SCENARIOS: &[Scenario] = &[
    waits("timeouts/stages", "10 s of silence at every stage: ERROR in [10.0, 10.5] s", stages),
    waits(
        "timeouts/hundreds",
        "400 connections each end in [10.0, 10.5] s after the last byte",
        hundreds,
    ),
    waits(
        "timeouts/server-s",
        "server-s: ERROR after 10 s, then the next client is greeted",
        server_s,
    ),
    waits("timeouts/nine-seconds", "a byte every 9 s keeps a connection alive", nine_seconds),
    waits("timeouts/drip", "--timeout 2: a byte every 1.3 s keeps handshake and body alive", drip),
    waits("timeouts/fraction", "--timeout 0.5: both servers end in [0.5, 1.0] s", fraction),
    waits(
        "timeouts/turns",
        "server-s: the timeout of a waiting client starts with its turn",
        turns,
    ),
    waits(
        "timeouts/our-stall",
        "a server that was suspended does not time out its clients",
        our_stall,
    ),
];

/// Shortest allowed time from the last byte to the end of the connection.
const LOW: Duration = Duration::from_secs(10);
/// Longest allowed time.
const HIGH: Duration = Duration::from_millis(10_500);
/// How long to wait for the ends.
const WATCH: Duration = Duration::from_secs(14);

/// A connection that sends no more bytes; the last one was sent between these two instants.
struct Silent {
    what: String,
    since: (Instant, Instant),
}

/// Opens a connection, sends `wire` and then nothing more.
fn fall_silent(
    address: std::net::SocketAddr,
    greeted: bool,
    wire: &[u8],
    what: String,
) -> Verdict<(Peer, Silent)> {
    let mut before = Instant::now();
    let mut peer = Peer::connect(address)?;
    if greeted {
        peer.expect(GREETING)?;
    }
    if !wire.is_empty() {
        before = Instant::now();
        peer.send(wire)?;
    }
    Ok((peer, Silent { what, since: (before, Instant::now()) }))
}

/// Returns a fault unless each connection is reset in time.
fn expect_resets(
    silent: Vec<(Peer, Silent)>,
    low: Duration,
    high: Duration,
    look: Duration,
) -> Verdict {
    let (peers, silent): (Vec<Peer>, Vec<Silent>) = silent.into_iter().unzip();
    let ends = peer::ends(&peers, look)?;
    for ((end, at), one) in ends.into_iter().zip(&silent) {
        ensure_eq("the connection's end", End::Reset, end).during(|| one.what.as_str())?;
        ensure_took("the silence", one.since, at, low, high).during(|| one.what.as_str())?;
    }
    Ok(())
}

fn stages(context: &Context) -> Verdict {
    let body = context.content(1, 300_000);
    let both = [FIRST, SECOND].concat();
    let wires: Vec<(&str, Vec<u8>)> = vec![
        ("no byte", vec![]),
        ("one byte of a confirmation", FIRST[..1].to_vec()),
        ("a confirmation", FIRST.to_vec()),
        ("a confirmation and a half", both[..30].to_vec()),
        ("a handshake", both.clone()),
        ("a handshake and content", [&both[..], &body].concat()),
        ("one byte of content", b"x".to_vec()),
        ("content", body.clone()),
    ];
    let modes = [&[][..], &["--handshake", "confirm"], &["--handshake", "direct"]];
    side_by_side(modes, |mode| {
        let server = context.server(mode)?;
        let greeted = mode.last() != Some(&"direct");
        let mut silent = Vec::new();
        for (what, wire) in &wires {
            let is_content = wire.starts_with(b"x") || *wire == body;
            if mode.last() == Some(&"confirm") && is_content {
                continue;
            }
            let what = format!("silence after {what}, server {mode:?}");
            silent.push(fall_silent(server.address(), greeted, wire, what)?);
        }
        let count = silent.len();
        expect_resets(silent, LOW, HIGH, WATCH)?;
        for id in 1..=count {
            server.expect_error(id)?;
        }
        server.expect_only(1..=count)?;
        server.stop()
    })
}

fn hundreds(context: &Context) -> Verdict {
    const COUNT: usize = 400;
    let server = context.server(&[])?;
    let mut silent = Vec::new();
    for number in 0..COUNT {
        // Half of the connections are in the handshake, half in the content.
        let wire = if number % 2 == 0 { &b"conf"[..] } else { b"content" };
        let what = format!("connection {} of {COUNT}", number + 1);
        silent.push(fall_silent(server.address(), true, wire, what)?);
        thread::sleep(Duration::from_millis(7));
    }
    // Most of them send another byte, in another order: only the last byte counts.
    for number in (0..COUNT).rev().filter(|number| number % 3 != 0) {
        let (peer, one) = &mut silent[number];
        let before = Instant::now();
        peer.send(if number % 2 == 0 { b"i" } else { b"!" })?;
        one.since = (before, Instant::now());
        thread::sleep(Duration::from_millis(3));
    }
    expect_resets(silent, LOW, HIGH, WATCH)?;
    for id in 1..=COUNT {
        server.expect_error(id)?;
    }
    server.expect_only(1..=COUNT)?;
    server.stop()
}

fn server_s(context: &Context) -> Verdict {
    let server = context.server_s(&[])?;
    let silent = fall_silent(server.address(), true, b"partial content", "silence".into())?;
    let mut next = server.connect()?;
    expect_resets(vec![silent], LOW, HIGH, WATCH)?;
    server.expect_line(0, "ERROR")?;
    next.greet_as_client(Dialect::Accio).during(|| "the next client")?;
    next.complete(b"content")?;
    server.stop_after(&["ERROR", "7"])
}

fn nine_seconds(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let content = b"two";
    let mut peer = server.connect_greeted()?;
    for byte in content[..2].chunks(1) {
        peer.expect_silence(Duration::from_secs(9))?;
        peer.send(byte)?;
    }
    peer.complete(&content[2..])?;
    server.expect_file(1, content)?;
    server.stop()
}

fn drip(context: &Context) -> Verdict {
    const GAP: Duration = Duration::from_millis(1_300);
    let server = context.server(&["--timeout", "2"])?;
    let server_s = context.server_s(&["--timeout", "2"])?;
    let drip = |peer: &mut Peer, bytes: &[u8]| -> Verdict {
        for byte in bytes.chunks(1) {
            peer.expect_silence(GAP)?;
            peer.send(byte)?;
        }
        Ok(())
    };
    let mut body = server.connect_greeted()?;
    let mut handshake = server.connect_greeted()?;
    let mut counted = server_s.connect()?;
    counted.greet_as_client(Dialect::Accio)?;
    side_by_side(
        [(&mut body, &b"slowly"[..]), (&mut handshake, b"confir"), (&mut counted, b"slowly")],
        |(peer, bytes)| drip(peer, bytes),
    )?;
    body.complete(b"")?;
    handshake.send(&FIRST[6..])?;
    handshake.expect(GREETING)?;
    handshake.send(SECOND)?;
    handshake.complete(b"at last")?;
    counted.complete(b"")?;
    server.expect_file(1, b"slowly")?;
    server.expect_file(2, b"at last")?;
    server.stop()?;
    server_s.stop_after(&["6"])
}

fn fraction(context: &Context) -> Verdict {
    let (low, high) = (Duration::from_millis(500), Duration::from_millis(1_000));
    let server = context.server(&["--timeout", "0.5"])?;
    let server_s = context.server_s(&["--timeout", "0.5"])?;
    for address in [server.address(), server_s.address()] {
        let silent = fall_silent(address, true, b"content", "silence".into())?;
        expect_resets(vec![silent], low, high, Duration::from_secs(4))?;
    }
    server.expect_error(1)?;
    server.stop()?;
    server_s.stop_after(&["ERROR"])
}

fn turns(context: &Context) -> Verdict {
    let server = context.server_s(&["--timeout", "1"])?;
    let began = Instant::now();
    let peers = (0..3).map(|_| server.connect()).collect::<Verdict<Vec<_>>>()?;
    let ends = peer::ends(&peers, Duration::from_secs(8))?;
    let mut turn = (began, Instant::now());
    for (index, (end, at)) in ends.into_iter().enumerate() {
        let place = || format!("client {}", index + 1);
        ensure_eq("the connection's end", End::Reset, end).during(place)?;
        // A turn starts when the previous connection ends.
        turn.1 = if index == 0 { began } else { turn.1 };
        let (low, high) = (Duration::from_secs(1), Duration::from_millis(1_500));
        // An end is noticed a little late, so the next turn may have started earlier by that time.
        let seen_late = Duration::from_millis(50);
        let since = (turn.0.checked_sub(seen_late).unwrap_or(turn.0), turn.1);
        ensure_took("the silence", since, at, low, high).during(place)?;
        turn = (at, at);
    }
    server.stop_after(&["ERROR"; 3])
}

fn our_stall(context: &Context) -> Verdict {
    let server = context.server(&["--timeout", "1"])?;
    let server_s = context.server_s(&["--timeout", "1"])?;
    let mut kept = server.connect_greeted()?;
    let mut counted = server_s.connect()?;
    counted.greet_as_client(Dialect::Accio)?;
    let processes = [&server.process, &server_s.process];
    for part in [b"first ", b"second"] {
        processes.iter().try_for_each(|process| process.pause())?;
        kept.send(part).during(|| "accio-server")?;
        counted.send(part).during(|| "server-s")?;
        // The pause is longer than the timeout, but the server is suspended, so it must not count.
        thread::sleep(Duration::from_millis(1_600));
        processes.iter().try_for_each(|process| process.signal(Signal::CONT))?;
        thread::sleep(Duration::from_millis(300));
    }
    kept.complete(b" third").during(|| "accio-server")?;
    counted.complete(b" third").during(|| "server-s")?;
    server.expect_file(1, b"first second third")?;
    server.stop()?;
    server_s.stop_after(&["18"])
}
