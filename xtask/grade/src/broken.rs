//! Misbehaving servers. A client must tolerate some of them and give up on the others.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::sockets;
use accio_harness::context::wait_until;
use accio_harness::peer::{Dialect, End, GREETING, Listener, Peer};
use accio_harness::verdict::Verdict;

/// Time limit of a misbehaving server for one client.
const LIMIT: Duration = Duration::from_secs(120);

/// Number of bytes after which a client that never ends is not read any more.
const MOST: u64 = 512 << 20;

/// A misbehaving server, for one client.
#[derive(Debug)]
pub(crate) struct BrokenServer {
    pub(crate) name: &'static str,
    /// Its misbehaviour, in one line.
    pub(crate) about: &'static str,
    /// Misbehaves and returns what the client sent. The caller closes the connection by dropping
    /// it.
    pub(crate) serve: fn(&mut Peer, Dialect) -> Verdict<ClientTraffic>,
    /// Whether the caller must keep the connection open afterwards, as part of the misbehaviour.
    pub(crate) keeps_open: bool,
}

/// The bytes that a client sent, and how it ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientTraffic {
    /// Number of bytes, including confirmations.
    pub(crate) bytes: u64,
    /// How the client ended the connection.
    pub(crate) end: End,
}

/// All misbehaving servers except `accepts-nothing`, which never has a client.
pub(crate) static ALL: &[BrokenServer] = &[
    BrokenServer {
        name: "silent",
        about: "accepts the connection and sends nothing",
        serve: silent,
        keeps_open: false,
    },
    BrokenServer {
        name: "drip",
        about: "sends the greeting at one byte per second",
        serve: drip,
        keeps_open: false,
    },
    BrokenServer {
        name: "split-1",
        about: "sends the greeting in two pieces, split after 1 byte",
        serve: split::<1>,
        keeps_open: false,
    },
    BrokenServer {
        name: "split-2",
        about: "… after 2 bytes",
        serve: split::<2>,
        keeps_open: false,
    },
    BrokenServer {
        name: "split-3",
        about: "… after 3 bytes",
        serve: split::<3>,
        keeps_open: false,
    },
    BrokenServer {
        name: "split-4",
        about: "… after 4 bytes",
        serve: split::<4>,
        keeps_open: false,
    },
    BrokenServer {
        name: "split-5",
        about: "… after 5 bytes",
        serve: split::<5>,
        keeps_open: false,
    },
    BrokenServer {
        name: "split-6",
        about: "… between \\r and \\n",
        serve: split::<6>,
        keeps_open: false,
    },
    BrokenServer {
        name: "together",
        about: "sends both greetings together",
        serve: together,
        keeps_open: false,
    },
    BrokenServer {
        name: "wrong",
        about: "sends a wrong greeting",
        serve: wrong,
        keeps_open: false,
    },
    BrokenServer {
        name: "endless",
        about: "sends a greeting that never ends",
        serve: endless,
        keeps_open: false,
    },
    BrokenServer {
        name: "late-8.5",
        about: "greets after 8.5 s, in time",
        serve: late::<8_500>,
        keeps_open: false,
    },
    BrokenServer {
        name: "late-12",
        about: "greets after 12 s, too late",
        serve: late::<12_000>,
        keeps_open: false,
    },
    BrokenServer {
        name: "zero-window",
        about: "greets, then reads nothing",
        serve: zero_window,
        keeps_open: true,
    },
    BrokenServer {
        name: "reset-mid-file",
        about: "resets after 100 kB",
        serve: reset_mid_file,
        keeps_open: false,
    },
    BrokenServer {
        name: "fin-mid-file",
        about: "closes after 100 kB",
        serve: fin_mid_file,
        keeps_open: false,
    },
    BrokenServer {
        name: "never-closes",
        about: "receives the file and never closes",
        serve: never_closes,
        keeps_open: true,
    },
];

/// How long to wait until a client has read what was sent.
const READING: Duration = Duration::from_secs(2);

/// The name of the server that accepts no connection.
pub(crate) const ACCEPTS_NOTHING: &str = "accepts-nothing";

/// Returns the misbehaving server with this name.
pub(crate) fn named(name: &str) -> Option<&'static BrokenServer> {
    ALL.iter().find(|broken| broken.name == name)
}

/// Fills the backlog, which must be 0, so that the next connection gets no answer, as from a dead
/// host. Returns `None` if this machine does not drop such connections.
pub(crate) fn fill(listener: &Listener) -> Option<Vec<TcpStream>> {
    let host = Ipv4Addr::LOCALHOST;
    let address = SocketAddr::from((host, listener.port()));
    let mut fillers = Vec::new();
    for _ in 0..64 {
        // On a busy machine a connection may just be slow, so ask the kernel for the queue's
        // length.
        let waiting = sockets::backlog(host, listener.port());
        if waiting.is_some_and(|waiting| waiting > 0) {
            return Some(fillers);
        }
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(filler) => fillers.push(filler),
            Err(_) if waiting.is_none() => return Some(fillers),
            Err(_) => {}
        }
    }
    None
}

/// Reads until the client ends the connection, or has sent too much.
fn rest(peer: &mut Peer, before: u64) -> Verdict<ClientTraffic> {
    let (end, bytes) = peer.end_within(LIMIT, MOST)?;
    Ok(ClientTraffic { bytes: before + bytes, end })
}

/// Receives as many bytes as the expected confirmation has, and returns their number.
fn answer(peer: &mut Peer, dialect: Dialect, second: bool) -> Verdict<u64> {
    let length = match (dialect, second) {
        (Dialect::Confirm, false) => accio_harness::peer::FIRST.len(),
        (Dialect::Confirm, true) => accio_harness::peer::SECOND.len(),
        _ => 0,
    };
    Ok(peer.receive(length, Duration::from_secs(15))?.len() as u64)
}

/// Waits for `time`, and if the client is on this machine, until it has read what was sent.
fn lets_read(peer: &Peer, time: Duration) {
    let since = Instant::now();
    // Looking at the sockets may itself take long, and the client has ten seconds for the handshake.
    wait_until(time + READING, || sockets::has_read(peer));
    thread::sleep(time.saturating_sub(since.elapsed()));
}

/// Calls `greet` as often as the dialect has greetings; returns the number of bytes received.
fn greet(
    peer: &mut Peer,
    dialect: Dialect,
    mut greet: impl FnMut(&mut Peer, bool) -> Verdict,
) -> Verdict<u64> {
    let times = match dialect {
        Dialect::Direct => 0,
        Dialect::Accio => 1,
        Dialect::Confirm => 2,
    };
    let mut answered = 0;
    for time in 0..times {
        greet(peer, time == 1)?;
        answered += answer(peer, dialect, time == 1)?;
    }
    Ok(answered)
}

fn greet_properly(peer: &mut Peer, dialect: Dialect) -> Verdict<u64> {
    greet(peer, dialect, |peer, _| peer.send(GREETING))
}

fn silent(peer: &mut Peer, _: Dialect) -> Verdict<ClientTraffic> {
    rest(peer, 0)
}

fn drip(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    let answered = greet(peer, dialect, |peer, second| {
        if second {
            // The client has ten seconds for the whole handshake; the first greeting took most of
            // them.
            return peer.send(GREETING);
        }
        GREETING.chunks(1).try_for_each(|byte| {
            lets_read(peer, Duration::from_secs(1));
            peer.send(byte)
        })
    })?;
    rest(peer, answered)
}

fn split<const AT: usize>(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    let answered = greet(peer, dialect, |peer, _| {
        peer.send(&GREETING[..AT])?;
        lets_read(peer, Duration::from_millis(300));
        peer.send(&GREETING[AT..])
    })?;
    rest(peer, answered)
}

fn together(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    peer.send(dialect.greetings())?;
    let mut answered = answer(peer, dialect, false)?;
    answered += answer(peer, dialect, true)?;
    rest(peer, answered)
}

fn wrong(peer: &mut Peer, _: Dialect) -> Verdict<ClientTraffic> {
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
    rest(peer, 0)
}

fn endless(peer: &mut Peer, _: Dialect) -> Verdict<ClientTraffic> {
    let (mut bytes, until) = (0, Instant::now() + LIMIT);
    while Instant::now() < until {
        // How the client ends the connection is seen below.
        if peer.send(&[b'a'; 100]).is_err() {
            return Ok(ClientTraffic { bytes, end: End::Reset });
        }
        let (end, more) = peer.end(Duration::from_millis(50))?;
        bytes += more;
        if end != End::Open {
            return Ok(ClientTraffic { bytes, end });
        }
    }
    Ok(ClientTraffic { bytes, end: End::Open })
}

fn late<const MILLIS: u64>(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    let (end, early) = peer.end(Duration::from_millis(MILLIS))?;
    if end != End::Open {
        return Ok(ClientTraffic { bytes: early, end });
    }
    let answered = greet_properly(peer, dialect)?;
    rest(peer, early + answered)
}

fn zero_window(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    let answered = greet_properly(peer, dialect)?;
    // The client's end cannot be seen behind unread bytes. The caller keeps the connection open.
    Ok(ClientTraffic { bytes: answered, end: End::Open })
}

/// Number of bytes received before the transfer is interrupted.
const MID_FILE: usize = 100_000;

fn reset_mid_file(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    let answered = greet_properly(peer, dialect)?;
    let bytes = peer.receive(MID_FILE, Duration::from_secs(15))?.len() as u64;
    socket2::SockRef::from(peer.stream()).set_linger(Some(Duration::ZERO))?;
    Ok(ClientTraffic { bytes: answered + bytes, end: End::Reset })
}

fn fin_mid_file(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    let answered = greet_properly(peer, dialect)?;
    let bytes = peer.receive(MID_FILE, Duration::from_secs(15))?.len() as u64;
    Ok(ClientTraffic { bytes: answered + bytes, end: End::Fin })
}

fn never_closes(peer: &mut Peer, dialect: Dialect) -> Verdict<ClientTraffic> {
    let answered = greet_properly(peer, dialect)?;
    // The caller keeps the connection open.
    rest(peer, answered)
}
