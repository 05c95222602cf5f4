//! The server that counts.

use std::time::{Duration, Instant};

use super::receiver::{self, LARGE, SMALL};
use crate::e2e::engine::Load::{Waits, Works};
use crate::e2e::peer::{Dialect, Peer, SOON};
use crate::e2e::verdict::{During, Stop, Verdict, ensure};
use crate::kit::check::{ANY, CONFIRMED, Check, GREETED};
use crate::kit::reference;
use crate::kit::running::{Result, Running};
use crate::kit::trial::Trial;

const BASE: Check = Check {
    id: "",
    points: 0,
    about: "",
    rule: "",
    dialects: ANY,
    load: Works,
    with_client: false,
    run: None,
};

const NUMBER: &str = "the number of bytes is printed as a single number, the handshake not counted";
const SIGNALS: &str = "SIGINT, SIGTERM and SIGQUIT end the server gracefully, with exit code 0";
const IDLE: &str = "no data for over 10 s: abort the connection, print the single word ERROR";
const ONE: &str = "connections are served one after another";
const LARGE_FILES: &str = "files of 100 MiB or more, which do not fit in memory, are accepted";

pub(super) static CHECKS: &[Check] = &[
    Check {
        id: "server-s/1",
        points: 5,
        about: "repository: at least 3 commits",
        rule: "the repository is looked at by the course",
        ..BASE
    },
    Check {
        id: "server-s/2",
        points: 5,
        about: "a bad port: ERROR: on stderr, an exit code that is not 0",
        rule: "an incorrect port ends the server with ERROR: on stderr and a non-zero exit code",
        run: Some(receiver::bad_port),
        ..BASE
    },
    Check {
        id: "server-s/3",
        points: 5,
        about: "SIGINT: a graceful end, exit code 0",
        rule: SIGNALS,
        run: Some(receiver::sigint),
        load: Waits,
        ..BASE
    },
    Check {
        id: "server-s/4",
        points: 5,
        about: "accepts a connection",
        rule: "the server listens at the port it is given and accepts connections",
        run: Some(receiver::accepts),
        ..BASE
    },
    Check {
        id: "server-s/5",
        points: 5,
        about: "sends the greeting before anything comes, and nothing more",
        rule: "after the connection is established the server sends accio\\r\\n",
        dialects: GREETED,
        run: Some(receiver::greets),
        ..BASE
    },
    Check {
        id: "server-s/6",
        points: 5,
        about: "starts to receive",
        rule: "after the handshake the server receives whatever the client sends",
        run: Some(receiver::receives),
        ..BASE
    },
    Check {
        id: "server-s/7",
        points: 5,
        about: "takes the next connection after the first is done",
        rule: ONE,
        run: Some(receiver::next),
        ..BASE
    },
    Check {
        id: "server-s/8",
        points: 5,
        about: "10 connections at once: none refused, one greeted at a time",
        rule: "up to 10 simultaneous connections wait their turn unrefused; only one is greeted at a time",
        load: Waits,
        run: Some(turns),
        ..BASE
    },
    Check {
        id: "server-s/9",
        points: 5,
        about: "10 s of silence: aborts and prints ERROR",
        rule: IDLE,
        load: Waits,
        run: Some(receiver::silence_after_data),
        ..BASE
    },
    Check {
        id: "server-s/10",
        points: 5,
        about: "takes the next connection after a time-out",
        rule: IDLE,
        load: Waits,
        run: Some(receiver::next_after_silence),
        ..BASE
    },
    Check {
        id: "server-s/11",
        points: 10,
        about: "500 bytes from the reference client arrive",
        rule: "tested against the instructor's client",
        run: Some(|trial| arrives(trial, SMALL)),
        ..BASE
    },
    Check {
        id: "server-s/12",
        points: 10,
        about: "… and the count printed is right",
        rule: NUMBER,
        run: Some(|trial| counts(trial, SMALL)),
        ..BASE
    },
    Check {
        id: "server-s/13",
        points: 10,
        about: "10 MiB from the reference client arrive",
        rule: "tested against the instructor's client",
        run: Some(|trial| arrives(trial, LARGE)),
        ..BASE
    },
    Check {
        id: "server-s/14",
        points: 10,
        about: "… and the count printed is right",
        rule: NUMBER,
        run: Some(|trial| counts(trial, LARGE)),
        ..BASE
    },
    Check {
        id: "server-s/15",
        points: 5,
        about: "10 MiB arrive over a network with delay and loss",
        rule: "tested with emulated delays and transmission errors",
        run: Some(|trial| {
            let (mut server, proxy) = trial.server_far_away()?;
            let content = trial.context.content(1, LARGE);
            receiver::arrives(trial, &mut server, proxy.address(), &content)
        }),
        ..BASE
    },
    Check {
        id: "server-s/16",
        points: 5,
        about: "… and the count printed is right",
        rule: NUMBER,
        run: Some(|trial| {
            let (mut server, proxy) = trial.server_far_away()?;
            let content = trial.context.content(1, LARGE);
            reference::send(proxy.address(), trial.dialect, &content)?;
            expect_count(&mut server, LARGE)
        }),
        ..BASE
    },
    Check {
        id: "server-s/sigterm",
        about: "SIGTERM: a graceful end, exit code 0",
        rule: SIGNALS,
        load: Waits,
        run: Some(receiver::sigterm),
        ..BASE
    },
    Check {
        id: "server-s/sigquit",
        about: "SIGQUIT: a graceful end, exit code 0",
        rule: SIGNALS,
        load: Waits,
        run: Some(receiver::sigquit),
        ..BASE
    },
    Check {
        id: "server-s/port-zero",
        about: "port 0 is a bad port",
        rule: "ports are 1 to 65535",
        run: Some(receiver::port_zero),
        ..BASE
    },
    Check {
        id: "server-s/interfaces",
        about: "listens on all interfaces",
        rule: "the server accepts connections coming from any interface",
        run: Some(receiver::all_interfaces),
        ..BASE
    },
    Check {
        id: "server-s/empty",
        about: "a connection with no byte counts 0",
        rule: NUMBER,
        run: Some(receiver::empty),
        ..BASE
    },
    Check {
        id: "server-s/100mib",
        about: "100mib: counted in bounded memory",
        rule: LARGE_FILES,
        run: Some(receiver::huge),
        ..BASE
    },
    Check {
        id: "server-s/counts-anew",
        about: "each connection is counted from 0",
        rule: NUMBER,
        run: Some(counts_anew),
        ..BASE
    },
    Check {
        id: "server-s/piecemeal",
        about: "confirmations and content byte by byte",
        rule: "what is sent at once may come in pieces",
        load: Waits,
        run: Some(receiver::piecemeal),
        ..BASE
    },
    Check {
        id: "server-s/second-greeting",
        about: "greets again only after the first confirmation",
        rule: "the second accio\\r\\n is sent when the first confirmation has come",
        dialects: CONFIRMED,
        load: Waits,
        run: Some(receiver::second_greeting),
        ..BASE
    },
    Check {
        id: "server-s/silent-start",
        about: "10 s without any byte: aborts and prints ERROR",
        rule: IDLE,
        load: Waits,
        run: Some(receiver::silence_from_start),
        ..BASE
    },
    Check {
        id: "server-s/slow",
        about: "a transfer of 12 s without a silence of 10 s is whole",
        rule: "10 s without data are an error, not 10 s of transfer",
        load: Waits,
        run: Some(receiver::slow),
        ..BASE
    },
    Check {
        id: "server-s/patient",
        about: "still serves when nobody connected for 12 s",
        rule: "the server runs until a signal ends it",
        load: Waits,
        run: Some(receiver::patient),
        ..BASE
    },
    Check {
        id: "server-s/reset",
        about: "takes the next connection after resets",
        rule: "the server runs until a signal ends it",
        run: Some(receiver::survives_reset),
        ..BASE
    },
    Check {
        id: "server-s/closes",
        about: "closes the connection after the client did",
        rule: "a connection is accepted, processed and closed",
        run: Some(receiver::closes),
        ..BASE
    },
    Check {
        id: "server-s/idle",
        about: "uses no processor time while nothing happens",
        rule: "no busy loop",
        load: Waits,
        run: Some(receiver::idle),
        ..BASE
    },
    Check {
        id: "server-s/loss",
        about: "10 MiB over a network that really loses packets",
        rule: "tested with emulated delays and transmission errors",
        run: Some(receiver::loss),
        ..BASE
    },
];

fn arrives(trial: &Trial<'_>, length: usize) -> Verdict {
    let mut server = trial.server()?;
    let address = server.address;
    receiver::arrives(trial, &mut server, address, &trial.context.content(1, length))
}

fn counts(trial: &Trial<'_>, length: usize) -> Verdict {
    let mut server = trial.server()?;
    reference::send(server.address, trial.dialect, &trial.context.content(1, length))?;
    expect_count(&mut server, length)
}

/// A fault unless exactly the number is printed.
fn expect_count(server: &mut Running, length: usize) -> Verdict {
    let lines = server.lines(1)?;
    ensure(lines == [length.to_string()], format!("the line {length} on stdout"), || {
        format!("{:?}", server.process.stdout().text())
    })
}

fn counts_anew(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let contents = [trial.context.content(1, SMALL), trial.context.content(2, 700)];
    let mut peers = Vec::new();
    for content in &contents {
        let peer = server.transfer(content)?;
        server.has_read_all(&peer)?;
        peers.push(peer);
    }
    server.expect(&contents.each_ref().map(|content| Result::Content(content)))
}

fn turns(trial: &Trial<'_>) -> Verdict {
    const COUNT: usize = 10;
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
        // Time enough for a server that would greet others, too.
        std::thread::sleep(Duration::from_millis(if turn < 3 { 500 } else { 20 }));
        if turn < 3 {
            server.settles();
        }
        let begun = (0..waiting.len())
            .filter(|other| has_turn(&server, trial.dialect, &waiting[*other]))
            .count();
        ensure(begun == 1, "one connection served at a time", || format!("{begun} at once"))
            .during(place)?;
        let mut peer = waiting.swap_remove(index);
        peer.greet_as_client(trial.dialect).during(place)?;
        peer.send(&content).during(place)?;
        peer.fin()?;
        server.has_read_all(&peer).during(place)?;
        done.push(peer);
    }
    let lines = server.lines(COUNT)?;
    ensure(lines.len() == COUNT, format!("{COUNT} lines on stdout"), || format!("{lines:?}"))
}

/// The connection that is served now.
fn next_turn(server: &Running, dialect: Dialect, waiting: &[Peer]) -> Verdict<usize> {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if let Some(index) = waiting.iter().position(|peer| has_turn(server, dialect, peer)) {
            return Ok(index);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(Stop::fault("one of those who wait to be served", format!("none is, in {SOON:?}")))
}

/// Whether the server has greeted it, or where there is no greeting, taken it.
fn has_turn(server: &Running, dialect: Dialect, peer: &Peer) -> bool {
    match dialect {
        Dialect::Direct => server.has_accepted(peer),
        _ => peer.stream().set_nonblocking(true).is_ok_and(|()| {
            let something = peer.stream().peek(&mut [0]).is_ok_and(|count| count > 0);
            peer.stream().set_nonblocking(false).is_ok() && something
        }),
    }
}
