//! The implementations of the checks that both servers share, for [`Trial::program`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::connection_end::OtherSide;
use crate::expectations::fails;
use crate::received;
use crate::reference;
use crate::running_server::{ExpectedResult, RunningServer, UNREAD};
use crate::sockets;
use crate::trial::Trial;
use accio_harness::payload;
use accio_harness::peer::{Dialect, End, FIRST, GREETING, Peer, SECOND, SOON, side_by_side};
use accio_harness::subject::Program;
use accio_harness::verdict::{Certain, During, Stop, Verdict, ensure, ensure_eq};
use accio_harness::{process_table, usage};

/// Size of a small file, in bytes.
pub(super) const SMALL: usize = 500;
/// Size of a large file, in bytes.
pub(super) const LARGE: usize = 10 << 20;
/// Size of a huge file, in bytes.
const HUGE: u64 = 100 << 20;
/// Maximum additional memory while receiving a huge file, in KiB.
const GROWTH: u64 = 40 << 10;
/// Maximum CPU time in two idle seconds, in clock ticks of 10 ms.
pub(super) const IDLE_TICKS: u64 = 20;
/// Largest share of its time in which a thread of an idle program may run: far more than a program that
/// polls needs, and far less than a busy loop.
const IDLE_PART: f64 = 0.25;

pub(super) fn bad_port(trial: &Trial<'_>) -> Verdict {
    side_by_side(["-1", "65536", "100000", "notaport"], |port| rejects_port(trial, port))
}

pub(super) fn port_zero(trial: &Trial<'_>) -> Verdict {
    rejects_port(trial, "0")
}

fn rejects_port(trial: &Trial<'_>, port: &str) -> Verdict {
    let dir = trial.context.fresh_directory("received")?;
    let dir = dir.to_string_lossy();
    let arguments = [port, &dir];
    let count = if trial.program == Program::Server { 2 } else { 1 };
    let mut process = trial.run_with(&arguments[..count])?;
    fails(&mut process, Instant::now(), Duration::from_secs(5))
        .during(|| format!("port {port}"))?;
    Ok(())
}

/// Sends the signals that the document of the dialect names.
pub(super) fn signals(trial: &Trial<'_>) -> Verdict {
    match trial.dialect {
        Dialect::Direct => {
            sigterm(trial)?;
            sigquit(trial)
        }
        _ => trial.server()?.ends_on(Signal::INT, "SIGINT"),
    }
}

pub(super) fn sigterm(trial: &Trial<'_>) -> Verdict {
    trial.server()?.ends_on(Signal::TERM, "SIGTERM")
}

pub(super) fn sigquit(trial: &Trial<'_>) -> Verdict {
    trial.server()?.ends_on(Signal::QUIT, "SIGQUIT")
}

pub(super) fn accepts(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let peer = server.connect()?;
    let accepted = server.accepted(&peer);
    if accepted.is_err() || trial.dialect == Dialect::Direct {
        // A server that does not greet may have accepted the connection.
        sockets::require()?;
    }
    accepted
}

pub(super) fn greets(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let mut peer = server.connect()?;
    peer.expect(GREETING)?;
    // An end is the business of other checks.
    let mut more = peer.receive(64, Duration::from_millis(500))?;
    server.settles();
    more.extend(peer.receive(64, Duration::from_millis(1))?);
    ensure(more.is_empty(), "nothing after the greeting", || payload::describe(&more))
}

pub(super) fn receives(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let mut peer = server.greeted()?;
    let content = trial.context.content(1, 50_000);
    let lost = |stop| match stop {
        Stop::Fault(_) => Stop::fault("the server to read all bytes", UNREAD),
        other => other,
    };
    peer.send(&content).map_err(lost).certain()?;
    server.has_read_all(&peer)?;
    if !sockets::are_visible() {
        peer.fin()?;
        has_read_to_the_end(&server, &peer)?;
    }
    Ok(())
}

/// Returns a fault unless the server has read all bytes of a connection whose client has closed.
pub(super) fn has_read_to_the_end(server: &RunningServer, peer: &Peer) -> Verdict {
    // Where sockets are invisible, only a server that closes without a reset has certainly read all.
    if !sockets::are_visible() {
        match server.end_of(peer) {
            OtherSide::Open => sockets::require()?,
            OtherSide::Closed => {}
            OtherSide::Reset => {
                return Err(Stop::fault("the server to read all bytes", UNREAD)).certain();
            }
        }
    }
    server.has_read_all(peer)
}

pub(super) fn next(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let contents = [trial.context.content(1, SMALL), trial.context.content(2, 700)];
    let mut peers = Vec::new();
    for (index, content) in contents.iter().enumerate() {
        let peer = server.transfer(content).during(|| format!("connection {}", index + 1))?;
        has_read_to_the_end(&server, &peer)?;
        // Other checks look at the printed lines.
        if trial.program == Program::Server {
            server.expect_file(index + 1, content)?;
        }
        peers.push(peer);
    }
    Ok(())
}

/// Sends `content` with the reference client. The transfer must end well: the server reads all
/// bytes, and a server that keeps files has one other than ERROR.
pub(super) fn arrives(server: &RunningServer, address: SocketAddr, content: &[u8]) -> Verdict {
    let sent = reference::send(server, address, content)?;
    if server.keeps_files() {
        return produces_file(server);
    }
    // The server has read everything if it closed the connection without a reset.
    if sent.is_closed { Ok(()) } else { has_read_to_the_end(server, &sent.peer) }
}

/// Returns a fault unless connection 1 produced a file other than ERROR.
pub(super) fn produces_file(server: &RunningServer) -> Verdict {
    let path = server.path(1);
    let exists = server.comes_to(|| received::length(&path).is_ok());
    let error = || received::holds(&path, b"ERROR");
    ensure(exists && !error(), "1.file with the received bytes", || {
        if exists { "1.file contains ERROR".into() } else { server.describe_missing(1) }
    })
}

pub(super) fn all_interfaces(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    const EXPECTED: &str = "the server to be bound to 0.0.0.0 (or ::)";
    let port = server.address.port();
    let Some(bound) = server.bound else {
        let Some(other) = other_host() else {
            return Err(Stop::skip("this machine has no second address"));
        };
        let connected = Peer::connect((other, port).into());
        return connected
            .map(drop)
            .map_err(|_| Stop::fault(EXPECTED, format!("it does not listen on {other}")));
    };
    ensure(bound.is_unspecified(), EXPECTED, || format!("bound to {bound}"))?;
    server.accepted(&Peer::connect((Ipv4Addr::new(127, 0, 0, 2), port).into())?)
}

/// Returns an address of this machine other than 127.0.0.1.
fn other_host() -> Option<IpAddr> {
    // It sends nothing; the system chooses an address from which it would.
    let outward = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    let second = IpAddr::from([127, 0, 0, 2]);
    let is_own = |host: &IpAddr| TcpListener::bind((*host, 0)).is_ok();
    outward().ok().into_iter().chain([second]).find(is_own)
}

pub(super) fn empty(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let _peer = server.transfer(b"")?;
    server.expect(&[ExpectedResult::Content(b"")])
}

pub(super) fn huge(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let before = process_table::peak_memory(server.process.pid());
    let mut peer = server.greeted()?;
    let block = trial.context.content(1, 1 << 20);
    for _ in 0..HUGE >> 20 {
        peer.send(&block)?;
    }
    server.has_read_all(&peer)?;
    let after = process_table::peak_memory(server.process.pid());
    peer.fin()?;
    match trial.program {
        Program::Server => {
            let path = server.path(1);
            let length = || received::length(&path).unwrap_or(0);
            server.comes_to(|| length() == HUGE);
            ensure_eq("bytes in 1.file", HUGE, length())?;
        }
        _ => server.expect_count(HUGE)?,
    }
    let grown = after.saturating_sub(before);
    ensure(
        grown <= GROWTH,
        format!("at most {} MiB more memory for {} MiB", GROWTH >> 10, HUGE >> 20),
        || format!("{} MiB more", grown >> 10),
    )
}

pub(super) fn piecemeal(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let mut peer = server.connect()?;
    let byte_by_byte = |peer: &mut Peer, bytes: &[u8]| -> Verdict {
        for byte in bytes.chunks(1) {
            peer.send(byte)?;
            thread::sleep(Duration::from_millis(15));
            server.lets_read(peer);
        }
        Ok(())
    };
    match trial.dialect {
        Dialect::Confirm => {
            peer.expect(GREETING)?;
            byte_by_byte(&mut peer, FIRST)?;
            peer.expect(GREETING)?;
            byte_by_byte(&mut peer, SECOND)?;
        }
        dialect => peer.greet_as_client(dialect)?,
    }
    byte_by_byte(&mut peer, b"in pieces")?;
    peer.fin()?;
    server.expect(&[ExpectedResult::Content(b"in pieces")])
}

pub(super) fn same_segment(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let content = trial.context.content(1, SMALL);
    let mut peer = server.connect()?;
    peer.expect(GREETING)?;
    peer.send(FIRST)?;
    peer.expect(GREETING)?;
    peer.send(&[SECOND, &content].concat())?;
    peer.fin()?;
    server.expect(&[ExpectedResult::Content(&content)])
}

pub(super) fn idle(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let pid = server.process.pid();
    expect_idle(pid).during(|| "no client connected")?;
    let _peer = server.greeted()?;
    expect_idle(pid).during(|| "one silent client")
}

/// Returns a fault if the processes of the group are busy while nothing happens.
pub(super) fn expect_idle(group: Pid) -> Verdict {
    const LOOKS: u32 = 40;
    if !process_table::exists() {
        return Err(Stop::skip("this system does not show the CPU time of other programs"));
    }
    thread::sleep(Duration::from_millis(300));
    let threads = || {
        let members = process_table::members(group).into_iter();
        usage::Threads::of(&members.filter_map(Pid::from_raw).collect::<Vec<_>>())
    };
    let (began, before) = (Instant::now(), threads());
    let ticks = process_table::cpu_ticks(group);
    let mut busy = 0;
    for _ in 0..LOOKS {
        thread::sleep(Duration::from_millis(50));
        busy += u32::from(process_table::wants_to_run(group));
    }
    let used = process_table::cpu_ticks(group).saturating_sub(ticks);
    // On a busy machine, a busy loop may get little CPU time, but it is always ready to run. A program
    // that polls is ready most of the time, too, and sleeps for the rest of it.
    let is_loop = busy == LOOKS
        || busy > LOOKS / 2 && threads().busiest_since(&before, began.elapsed()) > IDLE_PART;
    ensure(
        used <= IDLE_TICKS && !is_loop,
        format!("at most {} ms of CPU time in 2 idle seconds", IDLE_TICKS * 10),
        || format!("{} ms; ready to run {busy} times of {LOOKS}", used * 10),
    )
}

pub(super) fn slow(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let mut peer = server.greeted()?;
    for part in [&b"three "[..], b"parts, ", b"never silent for long"] {
        peer.send(part)?;
        thread::sleep(Duration::from_secs(4));
    }
    peer.send(b"!")?;
    peer.fin()?;
    server.expect(&[ExpectedResult::Content(b"three parts, never silent for long!")])
}

pub(super) fn patient(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    thread::sleep(Duration::from_secs(12));
    let content = trial.context.content(1, SMALL);
    let _peer = server.transfer(&content).during(|| "the first client, after 12 s")?;
    server.expect(&[ExpectedResult::Content(&content)])
}

pub(super) fn survives_reset(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let mut broken = server.greeted()?;
    broken.send(b"partial")?;
    server.has_read_all(&broken)?;
    broken.reset()?;
    // Also a connection that is reset before the greeting.
    server.connect()?.reset()?;
    thread::sleep(Duration::from_millis(100));
    server.settles();
    let peer = server.transfer(b"whole").during(|| "the connection after two resets")?;
    has_read_to_the_end(&server, &peer)?;
    server.settles();
    ensure(!server.process.has_ended()?, "the server to survive two resets", || "it ended".into())
}

pub(super) fn closes(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let mut peer = server.transfer(b"content")?;
    let (end, _) = peer.end(Duration::from_secs(1))?;
    let closed = end != End::Open || server.comes_to(|| server.has_closed(&peer));
    ensure(closed, "the server to close the connection after the client did", || {
        format!("it is open {SOON:?} later")
    })
}

pub(super) fn loss(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server_with_loss()?;
    let content = trial.context.content(1, LARGE);
    reference::send(&server, server.address, &content)?;
    server.expect(&[ExpectedResult::Content(&content)])
}

pub(super) fn second_greeting(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let mut peer = server.connect()?;
    peer.expect(GREETING)?;
    peer.send(&FIRST[..8])?;
    let quiet = Duration::from_millis(400);
    server.expect_silence(&mut peer, quiet).during(|| "half a confirmation sent")?;
    peer.send(&FIRST[8..])?;
    peer.expect(GREETING).during(|| "the first confirmation sent")?;
    peer.send(SECOND)?;
    server.expect_silence(&mut peer, quiet).during(|| "the second confirmation sent")
}
