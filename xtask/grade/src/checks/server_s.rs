//! The checks of server-s, which counts bytes.

use std::time::Duration;

use super::receiver::{self, LARGE, SMALL};
use super::silence;
use crate::check::Check;
use crate::connection_end::peek;
use crate::own_time::OwnTime;
use crate::reference;
use crate::running_server::{ExpectedResult, RunningServer};
use crate::sockets;
use crate::trial::Trial;
use accio_harness::peer::{Dialect, Peer, SOON};
use accio_harness::subject::Program;
use accio_harness::verdict::{Certain, During, Stop, Verdict, ensure};

const NUMBER: &str = "the number of bytes, without the handshake, is printed as a single number";
const IDLE: &str = "no data for over 10 s: abort the connection, print the single word ERROR";
const ONE: &str = "connections are served one after another";
const LARGE_FILES: &str = "files of 100 MiB or more, which do not fit in memory, are accepted";
const NETWORK: &str = "tested with emulated delays and transmission errors";
const INSTRUCTOR: &str = "tested against the instructor's client";
const TURNS: &str =
    "up to 10 simultaneous connections are accepted and wait; only one is greeted at a time";

/// Returns its checks, except for those that both servers share.
pub(super) fn checks() -> Vec<Check> {
    let check = |name, about, rule| Check::new(Program::ServerS, name, about, rule);
    vec![
        check("7", "accepts the next connection after the first is done", ONE)
            .worth(5)
            .run(receiver::next),
        check("8", "10 connections at once: none is refused, one is greeted at a time", TURNS)
            .worth(5)
            .waits()
            .run(turns),
        check("9", "10 s of silence: aborts and prints ERROR", IDLE)
            .worth(5)
            .waits()
            .run(silence::after_data),
        check("11", "500 bytes from the reference client arrive", INSTRUCTOR)
            .worth(10)
            .run(|trial| arrives(trial, SMALL)),
        check("12", "… and the printed count is right", NUMBER)
            .worth(10)
            .run(|trial| counts(trial, SMALL)),
        check("13", "10 MiB from the reference client arrive", INSTRUCTOR)
            .worth(10)
            .run(|trial| arrives(trial, LARGE)),
        check("14", "… and the printed count is right", NUMBER)
            .worth(10)
            .run(|trial| counts(trial, LARGE)),
        check("15", "10 MiB arrive over a network with delay and loss", NETWORK).worth(5).run(
            |trial| {
                let (server, proxy) = trial.server_far_away()?;
                let content = trial.context.content(1, LARGE);
                receiver::arrives(&server, proxy.address(), &content)
            },
        ),
        check("16", "… and the printed count is right", NUMBER).worth(5).run(|trial| {
            let (mut server, proxy) = trial.server_far_away()?;
            let content = trial.context.content(1, LARGE);
            reference::send(&server, proxy.address(), &content)?;
            server.expect_line(&LARGE.to_string())
        }),
        check("empty", "a connection without any byte counts 0", NUMBER).run(receiver::empty),
        check("100mib", "100mib: counted with bounded memory", LARGE_FILES).run(receiver::huge),
        check("counts-anew", "each connection is counted from 0", NUMBER).run(counts_from_zero),
        check("silent-start", "10 s without any byte: aborts and prints ERROR", IDLE)
            .waits()
            .run(silence::from_start),
    ]
}

fn arrives(trial: &Trial<'_>, length: usize) -> Verdict {
    let server = trial.server()?;
    receiver::arrives(&server, server.address, &trial.context.content(1, length))
}

fn counts(trial: &Trial<'_>, length: usize) -> Verdict {
    let mut server = trial.server()?;
    reference::send(&server, server.address, &trial.context.content(1, length))?;
    server.expect_line(&length.to_string())
}

fn counts_from_zero(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let contents = [trial.context.content(1, SMALL), trial.context.content(2, 700)];
    let mut peers = Vec::new();
    for content in &contents {
        let peer = server.transfer(content)?;
        server.has_read_all(&peer)?;
        peers.push(peer);
    }
    server.expect(&contents.each_ref().map(|content| ExpectedResult::Content(content)))
}

fn turns(trial: &Trial<'_>) -> Verdict {
    const COUNT: usize = 10;
    if trial.dialect == Dialect::Direct {
        sockets::require()?;
    }
    let mut server = trial.server()?;
    let mut waiting: Vec<Peer> = Vec::new();
    for number in 1..=COUNT {
        waiting.push(server.connect().during(|| format!("connection {number} of {COUNT}"))?);
    }
    let content = trial.context.content(1, SMALL);
    let mut done = Vec::new();
    for turn in 1..=COUNT {
        let place = || format!("turn {turn} of {COUNT}");
        let index = next_turn(&server, trial.dialect, &waiting).during(place)?;
        // Leave enough time for a server that would greet other clients, too.
        std::thread::sleep(Duration::from_millis(if turn < 3 { 500 } else { 20 }));
        if turn < 3 {
            server.settles();
        }
        let begun = (0..waiting.len())
            .filter(|other| has_turn(&server, trial.dialect, &waiting[*other]))
            .count();
        ensure(begun == 1, "one connection served at a time", || format!("{begun} at once"))
            .certain()
            .during(place)?;
        let mut peer = waiting.swap_remove(index);
        server.handshake(&mut peer).during(place)?;
        peer.send(&content).during(place)?;
        peer.fin()?;
        server.has_read_all(&peer).during(place)?;
        done.push(peer);
    }
    let lines = server.lines(COUNT)?;
    ensure(lines.len() == COUNT, format!("{COUNT} lines on stdout"), || server.printed())
}

/// Waits for a connection to be served, and returns its index.
fn next_turn(server: &RunningServer, dialect: Dialect, waiting: &[Peer]) -> Verdict<usize> {
    let time = OwnTime::of(&[server.process.pid()]);
    while !time.exceeds(SOON) {
        if let Some(index) = waiting.iter().position(|peer| has_turn(server, dialect, peer)) {
            return Ok(index);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Stop::fault("one of the waiting connections to be served", format!("none within {SOON:?}")))
}

/// Returns whether the server has greeted the connection or, without a greeting, accepted it.
fn has_turn(server: &RunningServer, dialect: Dialect, peer: &Peer) -> bool {
    match dialect {
        Dialect::Direct => server.is_open_at_server(peer),
        _ => matches!(peek(peer), Ok(1..)),
    }
}
