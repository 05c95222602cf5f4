//! Misbehaving servers, by name: some a client must tolerate, some it must give up on.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::sock_diag;
use accio_harness::peer::{Dialect, End, GREETING, Listener, Peer};
use accio_harness::verdict::Verdict;

/// How long a peer by hand goes on at the most.
const LIMIT: Duration = Duration::from_secs(120);

/// A server that misbehaves towards one client.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its misbehaviour, in a line.
    pub(crate) about: &'static str,
    /// Misbehaves, and returns what the client sent. The caller closes by dropping the peer.
    pub(crate) play: fn(&mut Peer, Dialect) -> Verdict<Seen>,
    /// Whether the connection must be kept after that, for it to be what it is.
    pub(crate) keeps: bool,
}

/// The bytes and the end of a connection, as the client sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Bytes, confirmations included.
    pub(crate) bytes: u64,
    /// How it ended.
    pub(crate) end: End,
}

/// All of them but `accepts-nothing`, which never has a client.
pub(crate) static ALL: &[Broken] = &[
    Broken {
        name: "silent",
        about: "takes the connection and says nothing",
        play: silent,
        keeps: false,
    },
    Broken { name: "drip", about: "greets at a byte a second", play: drip, keeps: false },
    Broken {
        name: "split-1",
        about: "greets in two pieces, cut after 1 byte",
        play: split::<1>,
        keeps: false,
    },
    Broken { name: "split-2", about: "… after 2 bytes", play: split::<2>, keeps: false },
    Broken { name: "split-3", about: "… after 3 bytes", play: split::<3>, keeps: false },
    Broken { name: "split-4", about: "… after 4 bytes", play: split::<4>, keeps: false },
    Broken { name: "split-5", about: "… after 5 bytes", play: split::<5>, keeps: false },
    Broken { name: "split-6", about: "… between \\r and \\n", play: split::<6>, keeps: false },
    Broken { name: "wrong", about: "greets with something else", play: wrong, keeps: false },
    Broken {
        name: "endless",
        about: "greets with something that never ends",
        play: endless,
        keeps: false,
    },
    Broken {
        name: "late-9.5",
        about: "greets after 9.5 s, in time",
        play: late::<9_500>,
        keeps: false,
    },
    Broken {
        name: "late-12",
        about: "greets after 12 s, too late",
        play: late::<12_000>,
        keeps: false,
    },
    Broken {
        name: "zero-window",
        about: "greets, then reads nothing",
        play: zero_window,
        keeps: true,
    },
    Broken {
        name: "reset-mid-file",
        about: "resets after 100 kB",
        play: reset_mid_file,
        keeps: false,
    },
    Broken { name: "fin-mid-file", about: "closes after 100 kB", play: fin_mid_file, keeps: false },
    Broken {
        name: "never-closes",
        about: "takes all and never closes",
        play: never_closes,
        keeps: true,
    },
];

/// The name of the one that takes no connection at all.
pub(crate) const ACCEPTS_NOTHING: &str = "accepts-nothing";

/// The one with this name.
pub(crate) fn named(name: &str) -> Option<&'static Broken> {
    ALL.iter().find(|broken| broken.name == name)
}

/// Fills the backlog, so that the next connection gets no answer: as close to a dead host as
/// loopback gets. Nothing if that does not work here. The backlog must be 0.
pub(crate) fn fill(listener: &Listener) -> Option<Vec<TcpStream>> {
    let host = Ipv4Addr::LOCALHOST;
    let address = SocketAddr::from((host, listener.port()));
    let mut fillers = Vec::new();
    for _ in 0..64 {
        // On a busy machine a connection may only be slow: the kernel knows how many wait.
        let waiting = sock_diag::find((host, listener.port()), None).map(|entry| entry.unread);
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

/// Reads what else comes until the client ends.
fn rest(peer: &mut Peer, before: u64) -> Verdict<Seen> {
    let (end, bytes) = peer.end(LIMIT)?;
    Ok(Seen { bytes: before + bytes, end })
}

/// The confirmation that `greeting` is answered with, if any: its bytes, whatever they are.
fn answer(peer: &mut Peer, dialect: Dialect, second: bool) -> Verdict<u64> {
    let length = match (dialect, second) {
        (Dialect::Confirm, false) => accio_harness::peer::FIRST.len(),
        (Dialect::Confirm, true) => accio_harness::peer::SECOND.len(),
        _ => 0,
    };
    Ok(peer.receive(length, Duration::from_secs(15))?.len() as u64)
}

/// Greets as often as the dialect wants, each time by `greet`; how much was answered.
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

fn whole(peer: &mut Peer, dialect: Dialect) -> Verdict<u64> {
    greet(peer, dialect, |peer, _| peer.send(GREETING))
}

fn silent(peer: &mut Peer, _: Dialect) -> Verdict<Seen> {
    rest(peer, 0)
}

fn drip(peer: &mut Peer, dialect: Dialect) -> Verdict<Seen> {
    let answered = greet(peer, dialect, |peer, second| {
        if second {
            // Ten seconds are for the whole handshake; one greeting takes most of them.
            return peer.send(GREETING);
        }
        GREETING.chunks(1).try_for_each(|byte| {
            thread::sleep(Duration::from_secs(1));
            peer.send(byte)
        })
    })?;
    rest(peer, answered)
}

fn split<const AT: usize>(peer: &mut Peer, dialect: Dialect) -> Verdict<Seen> {
    let answered = greet(peer, dialect, |peer, _| {
        peer.send(&GREETING[..AT])?;
        thread::sleep(Duration::from_millis(300));
        peer.send(&GREETING[AT..])
    })?;
    rest(peer, answered)
}

fn wrong(peer: &mut Peer, _: Dialect) -> Verdict<Seen> {
    peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
    rest(peer, 0)
}

fn endless(peer: &mut Peer, _: Dialect) -> Verdict<Seen> {
    let (mut bytes, until) = (0, Instant::now() + LIMIT);
    while Instant::now() < until {
        // Whether it is taken or not, the client's end shows below.
        if peer.send(&[b'a'; 100]).is_err() {
            return Ok(Seen { bytes, end: End::Reset });
        }
        let (end, more) = peer.end(Duration::from_millis(50))?;
        bytes += more;
        if end != End::Open {
            return Ok(Seen { bytes, end });
        }
    }
    Ok(Seen { bytes, end: End::Open })
}

fn late<const MILLIS: u64>(peer: &mut Peer, dialect: Dialect) -> Verdict<Seen> {
    let (end, early) = peer.end(Duration::from_millis(MILLIS))?;
    if end != End::Open {
        return Ok(Seen { bytes: early, end });
    }
    let answered = whole(peer, dialect)?;
    rest(peer, early + answered)
}

fn zero_window(peer: &mut Peer, dialect: Dialect) -> Verdict<Seen> {
    let answered = whole(peer, dialect)?;
    // What is never read hides the end behind it: the caller keeps the connection.
    Ok(Seen { bytes: answered, end: End::Open })
}

/// How much of a file is taken before it is broken off.
const MID_FILE: usize = 100_000;

fn reset_mid_file(peer: &mut Peer, dialect: Dialect) -> Verdict<Seen> {
    let answered = whole(peer, dialect)?;
    let bytes = peer.receive(MID_FILE, Duration::from_secs(15))?.len() as u64;
    socket2::SockRef::from(peer.stream()).set_linger(Some(Duration::ZERO))?;
    Ok(Seen { bytes: answered + bytes, end: End::Reset })
}

fn fin_mid_file(peer: &mut Peer, dialect: Dialect) -> Verdict<Seen> {
    let answered = whole(peer, dialect)?;
    let bytes = peer.receive(MID_FILE, Duration::from_secs(15))?.len() as u64;
    Ok(Seen { bytes: answered + bytes, end: End::Fin })
}

fn never_closes(peer: &mut Peer, dialect: Dialect) -> Verdict<Seen> {
    let answered = whole(peer, dialect)?;
    // The caller keeps the connection.
    rest(peer, answered)
}
