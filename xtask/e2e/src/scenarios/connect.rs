//! How the client connects: it tries all addresses, for at most ten seconds.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::client::{AT_ONCE, HIGH, expect_given_up};
use crate::runner::{Scenario, waits, works};
use accio_harness::context::{Context, ensure_failure, ensure_success};
use accio_harness::peer::{Listener, SOON};
use accio_harness::ports;
use accio_harness::verdict::{During, Stop, Verdict, ensure_took, ensure_within};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("connect/refused", "fails immediately if the connection is refused", refused),
    waits("connect/black-hole", "gives up connecting after 10 s", black_hole),
    waits("connect/unknown-host", "fails within 10 s on an unknown host", unknown_host),
    works("connect/localhost", "tries all addresses of a name", localhost),
    works("connect/ipv6", "both servers and the client work over IPv6", ipv6),
];

fn refused(context: &Context) -> Verdict {
    let port = ports::free()?;
    let file = context.file(b"never to be sent")?;
    let mut client = context.client("127.0.0.1", port, &file, &[])?;
    ensure_failure(&mut client, SOON, &[&port.to_string()])?;
    ensure_within("giving up", client.started(), AT_ONCE)
}

fn black_hole(context: &Context) -> Verdict {
    // A listener with a full backlog drops connection attempts, like a black hole.
    let listener = Listener::with(0, None)?;
    let mut fillers = Vec::new();
    let full = (0..64).any(|_| {
        match TcpStream::connect_timeout(&listener.address(), Duration::from_millis(300)) {
            Ok(filler) => {
                fillers.push(filler);
                false
            }
            Err(_) => true,
        }
    });
    if !full {
        return Err(Stop::skip("a full backlog does not drop connections on this machine"));
    }
    let file = context.file(b"never to be sent")?;
    let client = context.client("127.0.0.1", listener.port(), &file, &[])?;
    let started = client.started();
    expect_given_up(client, started, HIGH)
}

fn unknown_host(context: &Context) -> Verdict {
    const HOST: &str = "no-such-host.invalid";
    let file = context.file(b"never to be sent")?;
    let (answer, answers) = mpsc::channel();
    thread::spawn(move || {
        let known = (HOST, 9).to_socket_addrs().is_ok();
        // The receiver is gone if the resolver was too slow.
        let _ = answer.send(known);
    });
    let mut client = context.client(HOST, 9, &file, &[])?;
    // The client's time limit includes a slow resolver.
    let failed = ensure_failure(&mut client, Duration::from_secs(12), &[HOST]);
    if answers.recv_timeout(Duration::ZERO) == Ok(true) {
        return Err(Stop::skip(format!("the local resolver has an address for {HOST}")));
    }
    failed?;
    let ended = client.wait(SOON)?.at;
    let started = (client.started(), client.started());
    ensure_took("giving up", started, ended, Duration::ZERO, HIGH)
}

fn localhost(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let content = context.content(1, 500);
    let file = context.file(&content)?;
    // If localhost resolves to ::1 first, no server listens there.
    let mut client = context.client("localhost", server.port, &file, &[])?;
    let exit = client.wait(SOON)?;
    ensure_success(&client, exit)?;
    server.expect_file(1, &content)?;
    server.stop()
}

fn ipv6(context: &Context) -> Verdict {
    let loopback: SocketAddr = ([0, 0, 0, 0, 0, 0, 0, 1], 0).into();
    if let Err(error) = std::net::TcpListener::bind(loopback) {
        return Err(Stop::skip(format!("no IPv6 on this machine: {error}")));
    }
    let content = context.content(1, 100_000);
    let file = context.file(&content)?;
    for bind in ["::1", "::"] {
        let server = context.server(&["--bind", bind])?;
        let server_s = context.server_s(&["--bind", bind])?;
        for port in [server.port, server_s.port] {
            let mut client = context.client("::1", port, &file, &[])?;
            let exit = client.wait(SOON)?;
            ensure_success(&client, exit).during(|| format!("--bind {bind}"))?;
        }
        server.expect_file(1, &content)?;
        server.stop()?;
        server_s.stop_after(&["100000"])?;
    }
    Ok(())
}
