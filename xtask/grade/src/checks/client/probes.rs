//! The implementations of the client's checks.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, ToSocketAddrs};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::broken;
use crate::checks::receiver::SMALL;
use crate::content;
use crate::expectations::{GIVE_UP, RESTING, ends, expect_silence, fails, succeeds};
use crate::network_emulator::{NetworkEmulator, Pauses, Profile};
use crate::own_time::OwnTime;
use crate::reference::ReferenceServer;
use crate::sockets::{self, ConnectionProgress};
use crate::trial::{STARTED, Trial};
use accio_harness::context::wait_until;
use accio_harness::peer::{
    Dialect, End, FIRST, GREETING, Listener, Peer, SECOND, SOON, side_by_side,
};
use accio_harness::process::Process;
use accio_harness::subject::Program;
use accio_harness::verdict::{Certain, During, Stop, Verdict, ensure, ensure_eq};
use accio_harness::{payload, ports, process_table};

/// How long a client may pause before and between its content: ten seconds, and a busy machine.
const CONTENT: Duration = Duration::from_secs(15);
/// How long a client may take to print why it closed the connection.
const REASON: Duration = Duration::from_secs(1);

/// Runs the client with too few and too many arguments while a server is running, so that a client
/// that ignores an argument succeeds.
pub(super) fn arguments(trial: &Trial<'_>) -> Verdict {
    // Without this, a client that cannot start at all would pass.
    trial.connected(b"content").during(|| "three arguments")?;
    let file = trial.context.file(b"content")?;
    let file = file.to_string_lossy();
    side_by_side([0, 1, 2, 4], |count| {
        let server = ReferenceServer::start(Ipv4Addr::LOCALHOST.into(), trial.dialect, 7)?;
        let port = server.address().port().to_string();
        let words = ["127.0.0.1", &port, &file, "superfluous"];
        let mut client = trial.run_with(&words[..count])?;
        rejects(&mut client).during(|| format!("{count} arguments"))
    })
}

/// Returns a fault unless the client ends with an error message.
fn rejects(client: &mut Process) -> Verdict {
    let expected = format!("{} to print an error and exit with a non-zero code", client.command());
    let exit = ends(client, Instant::now(), GIVE_UP, expected.clone())?;
    let output = client.stderr().text() + &client.stdout().text();
    let how = || format!("{}, output {output:?}", exit.describe());
    let failed = exit.status.code().is_some_and(|code| code != 0);
    ensure(failed && !output.trim().is_empty(), expected, how).certain()?;
    let crash = CRASHES.into_iter().find(|text| output.contains(text));
    ensure(crash.is_none(), "an error message", || format!("a crash: {}", how())).certain()
}

/// Texts that interpreters and run-time libraries print when a program crashes.
const CRASHES: [&str; 6] = [
    "Traceback (most recent call last)",
    "SyntaxError",
    "panicked at",
    "terminate called",
    "Segmentation fault",
    "Exception in thread",
];

/// A name that does not exist; RFC 6761 reserves it.
const UNKNOWN: &str = "no-such-host.invalid";

/// Returns the reason if this machine's resolver is slow or invents answers, so that an unknown
/// name cannot be tested.
fn resolver_problem() -> Option<&'static str> {
    const SOON_ENOUGH: Duration = Duration::from_secs(4);
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = WHY.get_or_init(|| {
        let began = Instant::now();
        let found = (UNKNOWN, 9999).to_socket_addrs().is_ok();
        let took = began.elapsed();
        if found {
            return Some("the resolver returns an address for it".into());
        }
        let slow = took > SOON_ENOUGH;
        slow.then(|| format!("the resolver takes {:.0} s for it", took.as_secs_f64()))
    });
    why.as_deref()
}

pub(super) fn bad_target(trial: &Trial<'_>) -> Verdict {
    let mut targets = vec![
        ("127.0.0.1", "0"),
        ("127.0.0.1", "-1"),
        ("127.0.0.1", "65536"),
        ("127.0.0.1", "100000"),
        ("127.0.0.1", "notaport"),
    ];
    match resolver_problem() {
        None => targets.push((UNKNOWN, "9999")),
        Some(why) => trial.note(format!("host {UNKNOWN} was not tried: {why}")),
    }
    let file = trial.context.file(b"content")?;
    let file = file.to_string_lossy();
    side_by_side(targets, |(host, port)| {
        let mut client = trial.run_with(&[host, port, &file])?;
        fails(&mut client, Instant::now(), GIVE_UP)
            .during(|| format!("host {host}, port {port}"))
            .map(drop)
    })
}

pub(super) fn no_server(trial: &Trial<'_>) -> Verdict {
    let mut client = trial.client("127.0.0.1", ports::free()?, b"content")?;
    let since = client.started();
    fails(&mut client, since, GIVE_UP).map(drop)
}

pub(super) fn no_answer(trial: &Trial<'_>) -> Verdict {
    /// The kernel may accept a connection into the full backlog after all, so try several times.
    const TRIES: usize = 3;
    for _ in 0..TRIES {
        let listener = Listener::with(0, None)?;
        let Some(fillers) = broken::fill(&listener) else {
            return Err(Stop::Trouble(
                "a full backlog does not drop connections on this machine".into(),
            ));
        };
        let ports = fillers.iter().map(|filler| Ok(filler.local_addr()?.port()));
        let known = ports.collect::<std::io::Result<Vec<u16>>>()?;
        let mut client = trial.client("127.0.0.1", listener.port(), b"content")?;
        let started = client.started();
        let may_connect =
            || started.elapsed() < STARTED && trial.startup_failures.check(Program::Client).is_ok();
        let progress =
            |client: &Process| sockets::progress(client.pid(), listener.address(), &known);
        // Measure from its first packet, without the time that it takes to start.
        let mut since = None;
        while since.is_none() && !client.has_ended()? && may_connect() {
            since = (progress(&client) == ConnectionProgress::Connecting).then(Instant::now);
            thread::sleep(Duration::from_millis(20));
        }
        let gave_up = fails(&mut client, since.unwrap_or(started), GIVE_UP);
        match progress(&client) {
            ConnectionProgress::Connected => continue,
            now => {
                let connected = since.map(|since| since - started);
                return gave_up.map(drop).during(|| match connected {
                    Some(after) => {
                        format!("it tried to connect {after:.1?} after its start; now: {now:?}")
                    }
                    None => "it did not try to connect".to_owned(),
                });
            }
        }
    }
    Err(Stop::Trouble(format!("a full backlog accepted a connection, {TRIES} times")))
}

/// Waits for the end of a client that failed: it may print the reason after closing the connection.
fn with_reason(client: &Process, verdict: Verdict) -> Verdict {
    if verdict.is_err() && wait_until(REASON, || client.is_over().unwrap_or(true)) {
        client.stderr().wait(REASON, |_, is_complete| is_complete.then_some(()));
    }
    verdict
}

pub(super) fn nothing_early(trial: &Trial<'_>) -> Verdict {
    let (client, mut peer) = trial.connected(&trial.context.content(1, SMALL))?;
    with_reason(&client, waits_for_greetings(trial, &client, &mut peer))
}

fn waits_for_greetings(trial: &Trial<'_>, client: &Process, peer: &mut Peer) -> Verdict {
    let confirmed = trial.dialect == Dialect::Confirm;
    let times = if confirmed { 2 } else { 1 };
    let started = Instant::now();
    for time in 1..=times {
        for (index, byte) in GREETING.chunks(1).enumerate() {
            // Each byte must arrive by itself. The client has ten seconds for all of them, and on a busy
            // machine, looking at its socket takes a part of that.
            if started.elapsed() < RESTING {
                wait_until(RESTING, || sockets::has_read(peer));
            }
            let quiet = Duration::from_millis(120);
            let silent = match index {
                // The client may still answer the previous greeting.
                0 => expect_silence(client.pid(), peer, quiet),
                _ => peer.expect_silence(quiet),
            };
            silent.during(|| {
                format!("greeting {time} of {times}, {index} of {} bytes sent", GREETING.len())
            })?;
            peer.send(byte)?;
        }
        // The client must answer; another check looks at the bytes.
        let length = match (confirmed, time) {
            (true, 1) => FIRST.len(),
            (true, _) => SECOND.len(),
            _ => 1,
        };
        // A client whose confirmation is too short sends nothing more.
        let wait = if confirmed && time == 1 { Duration::from_secs(2) } else { SOON };
        let received = peer.receive(length, wait)?;
        ensure(!received.is_empty(), format!("an answer to greeting {time}"), || "none".into())?;
    }
    Ok(())
}

pub(super) fn confirmations(trial: &Trial<'_>) -> Verdict {
    let content = trial.context.content(1, SMALL);
    let (client, mut peer) = trial.connected(&content)?;
    with_reason(&client, confirms(&client, &mut peer))
}

fn confirms(client: &Process, peer: &mut Peer) -> Verdict {
    peer.send(GREETING)?;
    expect_confirmation(peer, FIRST).during(|| "after the first greeting")?;
    expect_silence(client.pid(), peer, Duration::from_millis(300))
        .during(|| "after the first confirmation")?;
    peer.send(GREETING)?;
    // Other checks look at the content.
    expect_confirmation(peer, SECOND).during(|| "after the second greeting")
}

fn expect_confirmation(peer: &mut Peer, expected: &[u8]) -> Verdict {
    let (received, end) = peer.receive_or_end(expected.len(), SOON)?;
    let hint = match received.first() {
        Some(first) if *first != b'c' => {
            "; a client of the dialect accio sends the file immediately (--handshake accio)"
        }
        None if end == End::Open => "; it sends nothing",
        _ => "",
    };
    let wrong = ensure(received == expected, payload::describe(expected), || {
        format!("{}{hint}", payload::describe(&received))
    });
    // The rest of an incomplete confirmation may be late.
    if expected.starts_with(&received) && end == End::Open { wrong } else { wrong.certain() }
}

/// Runs the misbehaving server `name`; the client must give up without having sent its file.
pub(super) fn gives_up_on(trial: &Trial<'_>, name: &str) -> Verdict {
    let broken = known(name)?;
    let content = trial.context.content(1, SMALL);
    let (mut client, mut peer) = trial.connected(&content)?;
    let since = Instant::now();
    let dialect = trial.dialect;
    thread::scope(|scope| {
        let serving = scope.spawn(move || (broken.serve)(&mut peer, dialect));
        let gave_up = fails(&mut client, since, GIVE_UP);
        // End the client in any case, so that the server ends, too.
        drop(client);
        gave_up?;
        let seen =
            serving.join().map_err(|_| Stop::Trouble("a broken server panicked".into()))??;
        ensure_eq("bytes sent by the client", 0, seen.bytes)
    })
}

/// Runs the misbehaving server `name`; the client must send its file nevertheless.
pub(super) fn tolerates(trial: &Trial<'_>, name: &str) -> Verdict {
    let content = trial.context.content(1, SMALL);
    let (mut client, mut peer) = trial.connected(&content)?;
    let expected = trial.dialect.confirmations().len() + content.len();
    let seen = (known(name)?.serve)(&mut peer, trial.dialect)
        .and_then(|seen| seen.end.expect_fin(expected as u64, seen.bytes));
    with_reason(&client, seen)?;
    drop(peer);
    succeeds(&mut client, SOON, &[])
}

fn known(name: &str) -> Verdict<&'static broken::BrokenServer> {
    broken::named(name).ok_or_else(|| Stop::Trouble(format!("no broken server {name}")))
}

pub(super) fn dies_mid_transfer(trial: &Trial<'_>) -> Verdict {
    side_by_side(["zero-window", "reset-mid-file", "reset by the network"], |how| {
        dies(trial, how).during(|| how)
    })
}

fn dies(trial: &Trial<'_>, how: &str) -> Verdict {
    // With a small buffer, the client is stuck immediately and not after megabytes.
    let listener = Listener::with(8, Some(64 << 10))?;
    let Some(broken) = broken::named(how) else {
        let profile = Profile { reset_at: Some(300_000), stall_every: u64::MAX, ..Profile::POOR };
        let local = Ipv4Addr::LOCALHOST.into();
        let proxy = NetworkEmulator::start(local, listener.address(), profile, Pauses::none())?;
        let mut client = trial.client_with_sparse(proxy.address().port())?;
        let mut peer = trial.accept(&listener, &client)?;
        peer.greet_as_server(trial.dialect)?;
        let (end, _) = peer.end(CONTENT)?;
        ensure(end == End::Reset, "a reset by the network", || end.to_string())?;
        return fails(&mut client, Instant::now(), GIVE_UP).map(drop);
    };
    let mut client = trial.client_with_sparse(listener.port())?;
    let mut peer = trial.accept(&listener, &client)?;
    (broken.serve)(&mut peer, trial.dialect)?;
    let since = if broken.keeps_open { last_moved(&mut client, &peer)? } else { Instant::now() };
    let kept = broken.keeps_open.then_some(peer);
    let gave_up = fails(&mut client, since, GIVE_UP);
    drop(kept);
    gave_up.map(drop)
}

/// Waits until the client has ended, or long enough that it should have; returns when the last bytes
/// moved into its send buffer or out of it, later by the delays of a busy machine since then.
fn last_moved(client: &mut Process, peer: &Peer) -> Verdict<Instant> {
    let amounts = || {
        let (own, theirs) = sockets::pair(peer);
        (own.map(|own| own.unread), theirs.map(|theirs| theirs.unacknowledged))
    };
    let (mut since, mut before) = (Instant::now(), amounts());
    let mut time = OwnTime::of(&[client.pid()]);
    while !client.has_ended()? && !time.exceeds(GIVE_UP) {
        thread::sleep(Duration::from_millis(20));
        let now = amounts();
        // When the client closes its socket, nothing has moved.
        if now != before && now.1.is_some() && !client.is_over()? {
            (since, time) = (Instant::now(), OwnTime::of(&[client.pid()]));
        }
        before = now;
    }
    Ok(since + since.elapsed().saturating_sub(time.elapsed()))
}

pub(super) fn transfers(trial: &Trial<'_>, length: usize) -> Verdict {
    trial.send_to_reference("127.0.0.1", &trial.context.content(1, length))
}

pub(super) fn never_closes(trial: &Trial<'_>) -> Verdict {
    let (mut client, mut peer) = trial.connected(b"content")?;
    let seen = (known("never-closes")?.serve)(&mut peer, trial.dialect)?;
    ensure(seen.end == End::Fin, "the client's FIN", || seen.end.to_string())?;
    let expected = format!("{} to end within {GIVE_UP:?}", client.command());
    let ended = ends(&mut client, Instant::now(), GIVE_UP, expected);
    drop(peer);
    ended.map(drop)
}

pub(super) fn slow_reader(trial: &Trial<'_>) -> Verdict {
    // More than the client's send buffer, so that the client can continue after each step.
    const STEP: usize = 5 << 20;
    const SIZE: u64 = 40 << 20;
    let file = trial.context.large_file(1, SIZE)?;
    // Keep only one step in memory, because many submissions may be graded at the same time.
    let mut sent = File::open(&file)?;
    let mut left = SIZE;
    let listener = Listener::with(8, Some(64 << 10))?;
    let mut client = trial.client_of_file(listener.port(), &file)?;
    let mut peer = trial.accept(&listener, &client)?;
    peer.greet_as_server(trial.dialect)?;
    let mut step = 0;
    while left > 0 {
        if step < 4 {
            thread::sleep(Duration::from_secs(3));
        }
        step += 1;
        let received = peer.receive(STEP.min(usize::try_from(left).unwrap_or(STEP)), CONTENT)?;
        let place = || format!("{} bytes of {SIZE} received", SIZE - left);
        ensure(!received.is_empty(), "more of the file", || "nothing more".into()).during(place)?;
        let mut expected = vec![0; received.len()];
        sent.read_exact(&mut expected)?;
        let actual = || content::received(&expected, &received);
        ensure(received == expected, content::sent(&expected), actual).during(place)?;
        left -= received.len() as u64;
    }
    let (end, count) = peer.end(SOON)?;
    end.expect_fin(0, count).during(|| "after the whole file")?;
    drop(peer);
    succeeds(&mut client, SOON, &[])
}

pub(super) fn huge(trial: &Trial<'_>) -> Verdict {
    /// Maximum memory of a client, in KiB: less than the file.
    const MOST: u64 = 64 << 10;
    const SIZE: u64 = 100 << 20;
    let file = trial.context.large_file(1, SIZE)?;
    let listener = Listener::bind()?;
    let mut client = trial.client_of_file(listener.port(), &file)?;
    let mut peer = trial.accept(&listener, &client)?;
    peer.greet_as_server(trial.dialect)?;
    let (mut read, mut peak) = (0, 0);
    // The rest of the file does not fit into the socket buffers, so the client is still running.
    while read < SIZE - (48 << 20) {
        let received = peer.receive(1 << 20, CONTENT)?.len() as u64;
        ensure(received > 0, format!("{SIZE} bytes"), || format!("{read} bytes and no more"))?;
        read += received;
        if read % (8 << 20) == 0 {
            peak = peak.max(process_table::peak_memory(client.pid()));
        }
    }
    let (end, rest) = peer.end_within(Duration::from_secs(30), SIZE)?;
    end.expect_fin(SIZE, read + rest)?;
    drop(peer);
    succeeds(&mut client, SOON, &[])?;
    ensure(peak <= MOST, format!("at most {} MiB of memory", MOST >> 10), || {
        format!("{} MiB", peak >> 10)
    })
}

pub(super) fn by_name(trial: &Trial<'_>) -> Verdict {
    trial.send_to_reference("localhost", &trial.context.content(1, SMALL))
}
