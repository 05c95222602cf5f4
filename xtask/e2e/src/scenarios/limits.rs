//! Usage of CPU, memory and descriptors, and the behaviour when they are exhausted.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Resource;

use crate::runner::{Scenario, waits, works};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::{Dialect, End, GREETING, Listener, Peer, SOON};
use accio_harness::process::Process;
use accio_harness::verdict::{During, Verdict, ensure, ensure_eq};

pub(super) static SCENARIOS: &[Scenario] = &[
    waits("limits/idle-cpu", "idle programs use no CPU time", idle_cpu),
    works("limits/memory", "each program transfers 300 MiB with at most 16 MiB of memory", memory),
    works("limits/memory-portable", "the same without fast paths", memory_portable),
    works("limits/descriptors-back", "every connection closes its descriptors", leaks),
    waits(
        "limits/no-descriptors",
        "without descriptors further clients wait, without a busy loop",
        no_descriptors,
    ),
    waits(
        "limits/few-descriptors",
        "ulimit -n 90: 60 concurrent clients, every file is complete",
        few,
    ),
    works(
        "limits/file-size",
        "a file that is too large is ERROR; the next are complete",
        file_size,
    ),
];

/// Maximum resident memory of a program, in KiB.
const MEMORY: u64 = 16 << 10;
/// Maximum CPU time in two idle seconds, in clock ticks of 10 ms.
const TICKS: u64 = 3;

/// Returns a fault if the process uses the CPU while nothing happens.
fn expect_idle(process: &Process) -> Verdict {
    let before = process.cpu_ticks()?;
    thread::sleep(Duration::from_secs(2));
    let used = process.cpu_ticks()? - before;
    ensure(
        used <= TICKS,
        format!("{} to use at most {TICKS} clock ticks in 2 idle seconds", process.name()),
        || format!("{used} ticks"),
    )
}

fn idle_cpu(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let server_s = context.server_s(&[])?;
    for process in [&server.process, &server_s.process] {
        expect_idle(process).during(|| "no client connected")?;
    }
    let mut peers = Vec::new();
    for address in [server.address(), server_s.address()] {
        for _ in 0..50 {
            peers.push(Peer::connect(address)?);
        }
    }
    for process in [&server.process, &server_s.process] {
        expect_idle(process).during(|| "50 silent clients")?;
    }
    drop(peers);
    let listener = Listener::bind()?;
    let file = context.file(&vec![0; 1 << 20])?;
    let client = context.client("127.0.0.1", listener.port(), &file, &[])?;
    let mut peer = listener.accept()?;
    expect_idle(&client).during(|| "waiting for the greeting")?;
    peer.send(GREETING)?;
    ensure_eq("the client's end", End::Fin, peer.end(SOON)?.0)?;
    expect_idle(&client).during(|| "waiting for the server's FIN")
}

fn memory(context: &Context) -> Verdict {
    peaks(context, &[])
}

fn memory_portable(context: &Context) -> Verdict {
    super::portable::require_switches(context)?;
    let flags: Vec<&str> = super::portable::NAMES.iter().flat_map(|n| ["--without", n]).collect();
    peaks(context, &flags)
}

fn peaks(context: &Context, flags: &[&str]) -> Verdict {
    const SIZE: u64 = 300 << 20;
    let file = context.large_file(1, SIZE)?;
    let server = context.server(flags)?;
    let server_s = context.server_s(flags)?;
    context.send(server.port, &file, flags)?;
    accio_harness::payload::ensure_same(&file, &server.path(1))?;
    fs::remove_file(server.path(1))?;
    context.send(server_s.port, &file, flags)?;
    server_s.expect_line(0, &SIZE.to_string())?;
    expect_peak(&server.process)?;
    expect_peak(&server_s.process)?;

    // Read the client's peak before it ends: the FIN is delayed until then.
    let listener = Listener::bind()?;
    let client = context.client("127.0.0.1", listener.port(), &file, flags)?;
    let mut peer = listener.accept()?;
    peer.send(GREETING)?;
    let (end, count) = peer.end(Duration::from_secs(30))?;
    ensure_eq("received from the client", (End::Fin, SIZE), (end, count))?;
    expect_peak(&client)?;
    drop(peer);
    server.stop()?;
    server_s.stop_after(&[&SIZE.to_string()])
}

fn expect_peak(process: &Process) -> Verdict {
    let peak = process.peak_memory()?;
    let name = process.name();
    ensure(peak < MEMORY, format!("{name} to stay under {MEMORY} KiB"), || format!("{peak} KiB"))
}

fn leaks(context: &Context) -> Verdict {
    let server = context.server(&["--timeout", "1"])?;
    let server_s = context.server_s(&["--timeout", "1"])?;
    let round = || -> Verdict {
        for address in [server.address(), server_s.address()] {
            for number in 0..40 {
                let mut peer = Peer::connect(address)?;
                peer.greet_as_client(Dialect::Accio)?;
                peer.send(&context.content(number, 200_000))?;
                if number % 2 == 0 {
                    peer.complete(b"")?;
                } else {
                    peer.reset()?;
                }
            }
        }
        Ok(())
    };
    // The first round may open descriptors that stay open, such as the workers' pipes.
    round()?;
    thread::sleep(Duration::from_millis(200));
    let before = [server.process.descriptors()?, server_s.process.descriptors()?];
    round()?;
    round()?;
    for (process, before) in [&server.process, &server_s.process].into_iter().zip(before) {
        // Some workers may get their first connection only now.
        let allowed = before + 2 * thread::available_parallelism().map_or(4, usize::from);
        let back = wait_until(SOON, || process.descriptors().is_ok_and(|now| now <= allowed));
        ensure(
            back,
            format!("{} to be at about {before} descriptors again", process.name()),
            || format!("{:?}", process.descriptors()),
        )?;
    }
    server.stop()
}

fn no_descriptors(context: &Context) -> Verdict {
    const COUNT: usize = 40;
    let server = context.server(&[])?;
    let open = server.process.descriptors()?;
    server.process.limit(Resource::Nofile, open as u64 + 12)?;
    let mut peers = (0..COUNT).map(|_| server.connect()).collect::<Verdict<Vec<Peer>>>()?;
    thread::sleep(Duration::from_millis(300));
    let before = server.process.cpu_ticks()?;
    thread::sleep(Duration::from_secs(2));
    let used = server.process.cpu_ticks()? - before;
    ensure(used <= 2 * TICKS, "no busy loop without descriptors", || format!("{used} ticks"))?;
    // The clients are served one after the other as descriptors become free.
    let until = Instant::now() + Duration::from_secs(9);
    for (served, peer) in peers.iter_mut().enumerate() {
        peer.greet_as_client(Dialect::Accio).during(|| format!("after {served} were served"))?;
        // If there is no descriptor for the file, the server ends the transfer with an error.
        let _ = peer.send(b"content").and_then(|()| peer.fin());
        let (end, _) = peer.end(SOON)?;
        ensure(end != End::Open, "the connection to end", || "it is open".into())?;
        ensure(Instant::now() < until, "40 served in 9 s", || format!("{served} served"))?;
    }
    server.connect_greeted()?.complete(b"as before")?;
    server.stop()
}

fn few(context: &Context) -> Verdict {
    const COUNT: usize = 60;
    let wrapper = ["sh", "-c", "ulimit -n 90 && exec \"$@\"", "sh"];
    let server = context.server_wrapped(&wrapper, &[])?;
    let peers = (0..COUNT).map(|_| server.connect()).collect::<Verdict<Vec<Peer>>>()?;
    for (number, mut peer) in peers.into_iter().enumerate() {
        let place = || format!("client {} of {COUNT}", number + 1);
        peer.greet_as_client(Dialect::Accio).during(place)?;
        peer.complete(&context.content(number as u64, 100_000)).during(place)?;
    }
    for number in 0..COUNT {
        server.expect_file(number + 1, &context.content(number as u64, 100_000))?;
    }
    server.expect_only(1..=COUNT)?;
    server.stop()
}

fn file_size(context: &Context) -> Verdict {
    for flags in [&[][..], &["--without", "splice"], &["--without", "preallocate"]] {
        let server = context.server(flags)?;
        server.process.limit(Resource::Fsize, 1 << 20)?;
        let content = context.content(1, 1 << 19);
        let mut small = server.connect_greeted()?;
        small.send(&content[..1 << 18])?;
        let mut large = server.connect_greeted()?;
        // The reset may arrive while sending or afterwards.
        if large.send(&context.content(2, 8 << 20)).is_ok() {
            large.expect_end(End::Reset).during(|| format!("{flags:?}"))?;
        }
        server.expect_error(2).during(|| format!("{flags:?}"))?;
        // No byte of it may appear in another file.
        small.complete(&content[1 << 18..])?;
        server.expect_file(1, &content)?;
        for id in 3..=10 {
            server.connect_greeted()?.complete(&content)?;
            server.expect_file(id, &content)?;
        }
        server.expect_only(1..=10)?;
        server.stop()?;
    }
    Ok(())
}
