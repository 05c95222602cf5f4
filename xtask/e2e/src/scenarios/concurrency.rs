//! Concurrent uploads: numbered in accept order and independent; one at a time in server-s.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::runner::{Scenario, waits, works};
use accio_harness::context::Context;
use accio_harness::payload;
use accio_harness::peer::{Dialect, End, Peer, side_by_side};
use accio_harness::verdict::{During, Verdict, ensure, ensure_eq, ensure_within};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("concurrency/ids", "ids follow the accept order, whichever upload ends first", ids),
    waits(
        "concurrency/greeted-at-once",
        "50 concurrent clients are greeted without waiting",
        greeted,
    ),
    works("concurrency/thousand", "1,000 concurrent uploads get the ids 1 to 1,000", thousand),
    works("concurrency/clients", "10 concurrent accio-clients with 10 MiB each", clients),
    waits(
        "concurrency/slow-next-to-fast",
        "a slow client does not delay others",
        slow_and_fast_clients,
    ),
    waits("concurrency/one-worker", "the same with --workers 1", one_worker),
    waits("concurrency/limit", "--max-connections 3: further clients wait, in order", limit),
    waits(
        "concurrency/server-s-turns",
        "server-s: 12 concurrent clients are greeted one by one",
        server_s_turns,
    ),
    works("concurrency/server-s-flush", "server-s: each line reaches a pipe immediately", flush),
];

fn ids(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let contents: Vec<Vec<u8>> = (0..30).map(|tag| context.content(tag, 5_000)).collect();
    let peers =
        contents.iter().map(|_| server.connect_greeted()).collect::<Verdict<Vec<Peer>>>()?;
    // Complete the uploads in reverse order.
    for (peer, content) in peers.into_iter().zip(&contents).rev() {
        peer.complete(content)?;
    }
    for (index, content) in contents.iter().enumerate() {
        server.expect_file(index + 1, content)?;
    }
    server.expect_only(1..=contents.len())?;
    server.stop()
}

fn greeted(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let began = Instant::now();
    let mut peers = (0..50).map(|_| server.connect()).collect::<Verdict<Vec<Peer>>>()?;
    for peer in &mut peers {
        peer.greet_as_client(Dialect::Accio)?;
    }
    ensure_within("50 greetings", began, Duration::from_secs(2))?;
    for peer in peers {
        peer.complete(b"x")?;
    }
    server.expect_only(1..=50)?;
    server.stop()
}

fn thousand(context: &Context) -> Verdict {
    const COUNT: usize = 1_000;
    const THREADS: usize = 20;
    // By default, one address gets three quarters of the places, which are few without a reactor.
    let server = context.server(&["--max-per-ip", "1000"])?;
    // All are connected and greeted before the first sends; from then on all send at once.
    let mut lots: Vec<Vec<(usize, Peer)>> = (0..THREADS).map(|_| Vec::new()).collect();
    let peers = (0..COUNT).map(|_| server.connect()).collect::<Verdict<Vec<Peer>>>()?;
    for (number, mut peer) in peers.into_iter().enumerate() {
        peer.greet_as_client(Dialect::Accio)?;
        lots[number % THREADS].push((number, peer));
    }
    let size = |number: usize| 1_000 + number * 37;
    side_by_side(lots, |mut lot| {
        let contents: Vec<Vec<u8>> =
            lot.iter().map(|(number, _)| context.content(*number as u64, size(*number))).collect();
        for part in 0..4 {
            for ((_, peer), content) in lot.iter_mut().zip(&contents) {
                let piece = content.len().div_ceil(4);
                peer.send(content.chunks(piece).nth(part).unwrap_or_default())?;
            }
        }
        lot.into_iter().try_for_each(|(_, peer)| peer.complete(b""))
    })?;
    server.expect_only(1..=COUNT)?;
    // At this rate only the kernel knows the order of the connections.
    let mut sizes = BTreeSet::new();
    for id in 1..=COUNT {
        let received = fs::read(server.path(id))?;
        let number = received.len().saturating_sub(1_000) / 37;
        payload::ensure_holds(&server.path(id), &context.content(number as u64, size(number)))?;
        ensure(sizes.insert(received.len()), "each upload once", || {
            format!("the upload of {} bytes twice", received.len())
        })?;
    }
    server.stop()
}

fn clients(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let files = (0..10)
        .map(|tag| context.large_file(tag, (10 << 20) + tag))
        .collect::<Verdict<Vec<_>>>()?;
    side_by_side(&files, |file| context.send(server.port, file, &[]))?;
    server.expect_only(1..=10)?;
    let mut left: BTreeSet<usize> = (0..10).collect();
    for id in 1..=10 {
        let size = usize::try_from(fs::metadata(server.path(id))?.len()).unwrap_or(0);
        let index = size.wrapping_sub(10 << 20);
        ensure(left.remove(&index), "each file once", || format!("{id}.file: {size} bytes"))?;
        payload::ensure_same(&files[index], &server.path(id))?;
    }
    server.stop()
}

fn slow_and_fast_clients(context: &Context) -> Verdict {
    slow_and_fast(context, &[])
}

fn one_worker(context: &Context) -> Verdict {
    slow_and_fast(context, &["--workers", "1"])
}

/// Checks that slow, silent and never-ending clients do not delay small uploads.
fn slow_and_fast(context: &Context, flags: &[&str]) -> Verdict {
    let server = context.server(flags)?;
    let mut slow = server.connect_greeted()?;
    let silent = server.connect_greeted()?;
    let mut endless = server.connect_greeted()?;
    let part = context.content(1, 1 << 20);
    for round in 0..20 {
        slow.send(b"s")?;
        endless.send(&part)?;
        let began = Instant::now();
        server.connect_greeted()?.complete(b"quick")?;
        ensure_within("a quick transfer", began, Duration::from_secs(2))
            .during(|| format!("round {}", round + 1))?;
    }
    slow.complete(b"")?;
    endless.reset()?;
    drop(silent);
    server.expect_file(1, &[b's'; 20])?;
    server.expect_file(2, b"")?;
    server.expect_error(3)?;
    server.expect_file(4, b"quick")?;
    server.stop()
}

fn limit(context: &Context) -> Verdict {
    let server = context.server(&["--max-connections", "3"])?;
    let mut peers = (0..6).map(|_| server.connect()).collect::<Verdict<Vec<Peer>>>()?;
    for peer in &mut peers[..3] {
        peer.greet_as_client(Dialect::Accio)?;
    }
    for peer in &mut peers[3..] {
        peer.expect_silence(Duration::from_millis(150)).during(|| "beyond the limit")?;
    }
    let mut waiting = peers.split_off(3).into_iter();
    for (index, peer) in peers.into_iter().enumerate() {
        peer.complete(b"content")?;
        let mut next = waiting.next().into_iter();
        next.try_for_each(|mut next| {
            next.greet_as_client(Dialect::Accio)?;
            next.complete(format!("waiting {index}").as_bytes())
        })?;
    }
    for index in 0..3 {
        server.expect_file(index + 4, format!("waiting {index}").as_bytes())?;
    }
    server.expect_only(1..=6)?;
    server.stop()
}

fn server_s_turns(context: &Context) -> Verdict {
    let server = context.server_s(&[])?;
    let mut peers = (0..12).map(|_| server.connect()).collect::<Verdict<Vec<Peer>>>()?;
    peers[0].greet_as_client(Dialect::Accio)?;
    side_by_side(peers[1..].iter_mut(), |peer| peer.expect_silence(Duration::from_secs(1)))
        .during(|| "before their turn")?;
    // Waiting clients may send before they are greeted.
    peers[1].send(b"early bird")?;
    let mut lines = Vec::new();
    let mut peers = peers.into_iter().enumerate().peekable();
    while let Some((number, mut peer)) = peers.next() {
        if number > 0 {
            peer.greet_as_client(Dialect::Accio).during(|| format!("turn {}", number + 1))?;
        }
        if let Some((_, next)) = peers.peek_mut() {
            next.expect_silence(Duration::from_millis(60)).during(|| "before its turn")?;
        }
        let content = context.content(number as u64, number * 1_000);
        peer.send(&content)?;
        peer.fin()?;
        peer.expect_end(End::Fin)?;
        lines.push((content.len() + if number == 1 { 10 } else { 0 }).to_string());
    }
    server.stop_after(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}

fn flush(context: &Context) -> Verdict {
    let server = context.server_s(&[])?;
    for (index, length) in [0, 1, 20_000, 7].into_iter().enumerate() {
        let mut peer = server.connect()?;
        peer.greet_as_client(Dialect::Accio)?;
        peer.complete(&context.content(1, length))?;
        let began = Instant::now();
        server.expect_line(index, &length.to_string())?;
        ensure_within("the line after the connection's end", began, Duration::from_millis(300))?;
    }
    let text = server.process.stdout().text();
    ensure_eq("stdout", "0\n1\n20000\n7\n", &text)?;
    server.stop_after(&["0", "1", "20000", "7"])
}
