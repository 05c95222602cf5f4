//! SIGINT, SIGTERM and SIGQUIT end a server cleanly, at any time.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::runner::{Scenario, waits, works};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::{Dialect, Peer, SOON, side_by_side};
use accio_harness::process::Process;
use accio_harness::verdict::{During, Verdict, ensure, ensure_took};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("signals/idle", "each signal without clients: exit 0 within 1 s, port closed", idle),
    waits(
        "signals/server-busy",
        "each signal with 100 open connections: exit 0, ERROR files",
        busy,
    ),
    waits(
        "signals/server-s-busy",
        "each signal with 100 waiting clients: exit 0, one line ERROR",
        busy_s,
    ),
    works(
        "signals/complete-stays",
        "files that were complete before the signal stay",
        complete_stays,
    ),
    works("signals/again", "a second signal changes nothing", again),
];

const SIGNALS: [(Signal, &str); 3] =
    [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM"), (Signal::QUIT, "SIGQUIT")];
/// Time limit for a server to end.
const LIMIT: Duration = Duration::from_secs(1);

/// Returns a fault unless the signal ends the process with exit code 0, in time, and closes its
/// port.
fn expect_end(process: &mut Process, port: u16, signal: Signal) -> Verdict {
    let sent = Instant::now();
    process.signal(signal)?;
    let exit = process.wait(SOON)?;
    ensure(exit.status.code() == Some(0), "exit code 0", || exit.describe())?;
    ensure_took("the end", (sent, sent), exit.at, Duration::ZERO, LIMIT)?;
    let text = process.stderr().text();
    // The log may report a connection; it must not report a failure of the program.
    let failed = text.lines().any(|line| line.starts_with("ERROR:"));
    ensure(!failed, "no ERROR: line on stderr", || format!("{text:?}"))?;
    let open = TcpStream::connect(("127.0.0.1", port)).is_ok();
    ensure(!open, format!("port {port} closed"), || "it accepts connections".into())
}

fn idle(context: &Context) -> Verdict {
    side_by_side(SIGNALS, |(signal, name)| {
        let mut server = context.server(&[])?;
        expect_end(&mut server.process, server.port, signal).during(|| name)?;
        server.expect_only([])?;
        let mut server = context.server_s(&[])?;
        expect_end(&mut server.process, server.port, signal).during(|| name)?;
        let text = server.process.stdout().text();
        ensure(text.is_empty(), "nothing on stdout", || format!("{text:?}"))
    })
}

fn busy(context: &Context) -> Verdict {
    let part = context.content(1, 20_000);
    side_by_side(SIGNALS, |(signal, name)| {
        let mut server = context.server(&[])?;
        let mut peers = Vec::new();
        for number in 0..100 {
            let mut peer = server.connect_greeted()?;
            match number % 4 {
                0 => {}
                1 => peer.send(b"confirm-")?,
                2 => peer.send(b"x")?,
                _ => peer.send(&part)?,
            }
            peers.push(peer);
        }
        expect_end(&mut server.process, server.port, signal).during(|| name)?;
        for id in 1..=100 {
            server.expect_error(id).during(|| name)?;
        }
        server.expect_only(1..=100)
    })
}

fn busy_s(context: &Context) -> Verdict {
    side_by_side(SIGNALS, |(signal, name)| {
        let mut server = context.server_s(&[])?;
        let peers = (0..100).map(|_| server.connect()).collect::<Verdict<Vec<Peer>>>();
        let mut peers = peers?;
        peers[0].greet_as_client(Dialect::Accio)?;
        peers[0].send(b"part of a file")?;
        expect_end(&mut server.process, server.port, signal).during(|| name)?;
        let text = server.process.stdout().text();
        ensure(text == "ERROR\n", "stdout: ERROR for the open connection", || format!("{text:?}"))
    })
}

fn complete_stays(context: &Context) -> Verdict {
    let mut server = context.server(&[])?;
    let content = context.content(1, 200_000);
    server.connect_greeted()?.complete(&content)?;
    let mut open = server.connect_greeted()?;
    open.send(&content)?;
    expect_end(&mut server.process, server.port, Signal::TERM)?;
    server.expect_file(1, &content)?;
    server.expect_error(2)?;
    server.expect_only([1, 2])
}

fn again(context: &Context) -> Verdict {
    let mut server = context.server(&[])?;
    let _peers = (0..20).map(|_| server.connect_greeted()).collect::<Verdict<Vec<Peer>>>()?;
    for _ in 0..2 {
        server.process.signal(Signal::INT)?;
    }
    let ended = wait_until(LIMIT, || server.process.has_ended().unwrap_or(false));
    ensure(ended, "the server to end within 1 s", || "it is still running".into())?;
    let exit = server.process.wait(SOON)?;
    ensure(exit.status.code() == Some(0), "exit code 0", || exit.describe())
}
