//! Servers without free file descriptors, and with ten thousand silent clients.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Resource;

use super::directory_oracle::{content, survey};
use super::load::{UploadOutcome, send};
use super::runner::{Case, RunOptions};
use super::strace;
use super::volume::Volume;
use accio_harness::context::{Context, Server, wait_until};
use accio_harness::peer::{Dialect, End, GREETING, Peer, SOON, side_by_side};
use accio_harness::process::{self, Process};
use accio_harness::tools;
use accio_harness::verdict::{During, Stop, Verdict, ensure, ensure_eq};
use accio_harness::work_dir::WorkDir;

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let mut cases = vec![
        Case::new(
            "exhaustion/nofile-64-hard",
            "200 clients share 64 descriptors; all files are whole",
            |context| few_descriptors(context, "--nofile=64:64"),
        ),
        Case::new(
            "exhaustion/nofile-64-soft",
            "the soft limit is raised; all files are whole",
            |context| few_descriptors(context, "--nofile=64:4096"),
        ),
        Case::new(
            "exhaustion/nofile-64-held",
            "200 clients wait for a silent one: the server idles, serves the next in 200 ms",
            held,
        )
        .alone(),
        Case::new("exhaustion/monotonic", "no timer depends on the wall clock", monotonic),
        Case::new("exhaustion/wall-clock-set", "the clock is set while clients are silent", |_| {
            Err(Stop::skip("the wall clock cannot be set for this test alone"))
        }),
        Case::new("exhaustion/emfile", "without descriptors: idle, then back in 200 ms", emfile)
            .alone(),
    ];
    let silent = options.scale(1_000, 9_800);
    let name = |seconds: &str| format!("exhaustion/silent-{silent}-for-{seconds}-s");
    let about = "uploads succeed among silent clients, which all end within [T, T + 0.5 s]";
    cases.push(
        Case::new(name("3"), about, move |context| idle_in_memory(context, silent, Some("3")))
            .alone(),
    );
    if !options.quick {
        cases.push(
            Case::new(name("10"), about, move |context| idle_in_memory(context, silent, None))
                .alone(),
        );
        let unprivileged = options.unprivileged;
        let name = format!("{}-on-ext4", name("10"));
        let about = "the same, with the error markers on a disk";
        let case = Case::new(name, about, move |context| {
            let volume = Volume::ext4(context, unprivileged, 256 << 20, &["-N", "24000"])?;
            let dir = volume.path().join("received");
            idle(context, &dir, silent, None).map(|note| note + ", on ext4")
        });
        cases.push(case.alone());
    }
    cases
}

/// Uploads with many more clients than descriptors; the others wait.
fn few_descriptors(context: &Context, limit: &str) -> Verdict<String> {
    tools::require("prlimit")?;
    let server = context.server_wrapped(&["prlimit", limit, "--"], &["--timeout", "5"])?;
    side_by_side(1..=200u64, |tag| {
        let outcome = send(server.address(), &content(tag, 20_000), Duration::from_secs(40));
        ensure_eq("an upload", UploadOutcome::Confirmed, outcome)
    })?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&(1..=200).collect::<Vec<_>>())?;
    expect_idle(&server.process).during(|| "afterwards")?;
    server.stop()?;
    Ok("200 uploads".into())
}

/// Lets one silent client use the last descriptor. The server must not use the CPU and
/// must serve the next client as soon as the silent one is gone.
fn held(context: &Context) -> Verdict<String> {
    tools::require("prlimit")?;
    let wrapper = ["prlimit", "--nofile=64:64", "--"];
    let server = context.server_wrapped(&wrapper, &["--timeout", "60"])?;
    let mut current = server.connect_greeted()?;
    let waiting: Vec<Peer> = (0..200).map(|_| server.connect()).collect::<Verdict<_>>()?;
    let used = expect_idle(&server.process).during(|| "while 200 wait")?;
    let mut worst = Duration::ZERO;
    for mut next in waiting.into_iter().take(20) {
        current.reset()?;
        let freed = Instant::now();
        next.expect(GREETING)?;
        worst = worst.max(freed.elapsed());
        current = next;
    }
    ensure(
        worst < Duration::from_millis(200),
        "service within 200 ms of a free descriptor",
        || format!("{worst:?}"),
    )?;
    drop(current);
    server.stop()?;
    Ok(format!("{used} ticks in a second; served after {} ms at the most", worst.as_millis()))
}

/// Checks that time limits do not depend on the wall clock: they are timeouts of `epoll_wait`,
/// which are relative, or kernel timers on the monotonic clock. (Reading a clock needs no system
/// call; a unit test checks that the library's sources name no other clock.)
fn monotonic(context: &Context) -> Verdict<String> {
    tools::require_tracing()?;
    let record = context.fresh("trace");
    let options = ["-e", "trace=timerfd_create,timer_create,/^epoll_p?wait2?$"].map(String::from);
    let wrapper = strace::wrapper(&options, &record);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let server = context.server_wrapped(&wrapper, &["--timeout", "0.3"])?;
    let mut silent = server.connect_greeted()?;
    silent.send(b"x")?;
    ensure_eq("the end of a silent connection", End::Reset, silent.end(SOON)?.0)?;
    strace::release(server.process.pid())?;
    server.stop()?;
    let trace = std::fs::read_to_string(&record)?;
    let created = trace.matches("timerfd_create(CLOCK_MONOTONIC").count();
    let made = trace.matches("timerfd_create(").count() + trace.matches("timer_create(").count();
    let timed_out = |line: &&str| line.contains("epoll_") && line.trim_end().ends_with("= 0");
    let waits = trace.lines().filter(timed_out).count();
    ensure(
        waits > 0 && created == made,
        "waits with a timeout, and only monotonic timers",
        || trace.clone(),
    )?;
    Ok(format!("{waits} waits timed out, {created} timers"))
}

/// Lowers the descriptor limit of a running server to what it uses, so that `accept` fails.
fn emfile(context: &Context) -> Verdict<String> {
    tools::require("prlimit")?;
    let server = context.server(&["--timeout", "60"])?;
    ensure_eq(
        "before",
        UploadOutcome::Confirmed,
        send(server.address(), &content(1, 300_000), SOON),
    )?;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(server.connect_greeted()?);
    }
    let open = server.process.descriptors()?;
    limit(&server, open)?;
    let waiting: Vec<Peer> = (0..30).map(|_| server.connect()).collect::<Verdict<_>>()?;
    let mut waiting = waiting.into_iter();
    thread::sleep(Duration::from_millis(300));
    expect_idle(&server.process).during(|| "without descriptors")?;

    // When a connection ends, the next waiting client must be served immediately.
    let mut worst = Duration::ZERO;
    for peer in held.drain(..10) {
        let mut next = waiting.next().ok_or_else(|| Stop::Trouble("no client waits".into()))?;
        peer.reset()?;
        let freed = Instant::now();
        next.expect(GREETING)?;
        worst = worst.max(freed.elapsed());
        next.reset()?;
    }
    ensure(
        worst < Duration::from_millis(200),
        "service within 200 ms of a free descriptor",
        || format!("{worst:?}"),
    )?;
    // The limit is raised while no connection ends: the server must notice by itself.
    let mut next = waiting.next().ok_or_else(|| Stop::Trouble("no client waits".into()))?;
    limit(&server, open + 200)?;
    let freed = Instant::now();
    next.expect(GREETING)?;
    let lifted = freed.elapsed();
    ensure(lifted < Duration::from_millis(200), "service within 200 ms of a higher limit", || {
        format!("{lifted:?}")
    })?;
    drop((waiting, next, held));
    ensure_eq(
        "after",
        UploadOutcome::Confirmed,
        send(server.address(), &content(2, 300_000), SOON),
    )?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&[1, 2])?;
    server.stop()?;
    let (worst, lifted) = (worst.as_millis(), lifted.as_millis());
    Ok(format!("served {worst} ms after a free descriptor, {lifted} ms after a higher limit"))
}

/// Sets the soft limit of a running server.
fn limit(server: &Server, descriptors: usize) -> Verdict {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &server.process.pid().as_raw_nonzero().to_string()]);
    command.arg(format!("--nofile={descriptors}:"));
    process::checked_output(command, b"", SOON).map(drop)
}

/// Returns the clock ticks that the process uses in a second; a fault if it is busy.
pub(super) fn expect_idle(process: &Process) -> Verdict<u64> {
    let before = process.cpu_ticks()?;
    thread::sleep(Duration::from_secs(1));
    let used = process.cpu_ticks()? - before;
    ensure(used <= 3, "at most 3 clock ticks in an idle second", || format!("{used}"))?;
    Ok(used)
}

/// Runs [`idle`] in `/dev/shm` if possible: writing ten thousand error markers at once to a disk
/// would distort the measured times.
fn idle_in_memory(context: &Context, count: usize, timeout: Option<&str>) -> Verdict<String> {
    let memory = WorkDir::within(Path::new("/dev/shm"), "torture", || ());
    let place = memory.as_ref().map_or("on the disk", |_| "in memory");
    let dir = memory.or_else(|_| WorkDir::within(context.dir(), "torture", || ()))?;
    let note = idle(context, &dir.path().join("received"), count, timeout)?;
    Ok(format!("{note}, {place}"))
}

/// Holds `count` silent connections and uploads files at the same time.
fn idle(context: &Context, dir: &Path, count: usize, timeout: Option<&str>) -> Verdict<String> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = count as u64 + 500;
    if limit < needed {
        return Err(Stop::skip(format!("a descriptor limit of {limit}: {needed} are needed")));
    }
    // All have the same address.
    let mut flags = vec!["--max-per-ip", "1000000"];
    flags.extend(timeout.iter().flat_map(|seconds| ["--timeout", seconds]));
    let seconds: u64 = timeout.map_or(10, |text| text.parse().unwrap_or(10));
    let server = context.server_into(dir, &flags)?;
    // All are silent at first; then every fourth sends a byte, so that it has a file open, too.
    let mut peers = Vec::with_capacity(count);
    for _ in 0..count {
        peers.push(connect(server.address())?);
    }
    let descriptors = server.process.descriptors()?;
    ensure(descriptors >= count, "all connections to be open", || descriptors.to_string())?;
    // From here on the connections are silent. Remember when the last byte of each was sent.
    let mut last_sent = Vec::with_capacity(count);
    for (number, peer) in peers.iter().enumerate() {
        let before = Instant::now();
        if number % 4 == 0 {
            std::io::Write::write_all(&mut &*peer, b"x")?;
        }
        last_sent.push((number % 4 == 0).then_some((before, Instant::now())));
    }
    let uploads = 20;
    let address = server.address();
    let others = thread::spawn(move || {
        let mut worst = Duration::ZERO;
        let mut outcomes = Vec::new();
        for tag in 1..=uploads {
            let began = Instant::now();
            outcomes.push(send(address, &content(tag, 500_000), SOON));
            worst = worst.max(began.elapsed());
        }
        (outcomes, worst)
    });
    let ends = ends(&peers, Duration::from_secs(seconds + 8))?;
    let (outcomes, worst) =
        others.join().map_err(|_| Stop::Trouble("an uploading thread panicked".into()))?;
    ensure(
        outcomes.iter().all(|outcome| *outcome == UploadOutcome::Confirmed),
        "all uploads to be confirmed",
        || format!("{outcomes:?}"),
    )?;
    let low = Duration::from_secs(seconds);
    let high = low + Duration::from_millis(500);
    let (mut shortest, mut longest) = (Duration::MAX, Duration::ZERO);
    for (number, (end, times)) in ends.iter().zip(&last_sent).enumerate() {
        let Some((end, at)) = end else {
            return Err(Stop::fault("every silent connection to end", format!("{number} is open")));
        };
        ensure_eq("the end of a silent connection", End::Reset, *end)?;
        // For the others the timeout runs from their accept, whose time only the server knows.
        let Some((before, after)) = times else { continue };
        shortest = shortest.min(at.saturating_duration_since(*before));
        longest = longest.max(at.saturating_duration_since(*after));
    }
    ensure(shortest >= low && longest <= high, format!("ends from {low:?} to {high:?}"), || {
        format!("from {shortest:?} to {longest:?}")
    })?;
    drop(peers);
    let back = wait_until(SOON, || server.process.descriptors().is_ok_and(|now| now < 60));
    ensure(back, "all descriptors back", || format!("{:?}", server.process.descriptors()))?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&(1..=uploads).collect::<Vec<_>>())?;
    ensure_eq("error markers", count, found.errors)?;
    server.stop()?;
    Ok(format!(
        "ends after {:.3} to {:.3} s, uploads among them in {} ms at the most",
        shortest.as_secs_f64(),
        longest.as_secs_f64(),
        worst.as_millis()
    ))
}

pub(super) fn connect(address: SocketAddr) -> Verdict<TcpStream> {
    let mut peer = Peer::connect(address)?;
    peer.greet_as_client(Dialect::Accio)?;
    Ok(peer.into_stream())
}

/// Returns how and when each connection ended.
pub(super) fn ends(peers: &[TcpStream], limit: Duration) -> Verdict<Vec<Option<(End, Instant)>>> {
    let until = Instant::now() + limit;
    let mut ends: Vec<Option<(End, Instant)>> = vec![None; peers.len()];
    let mut open: Vec<usize> = (0..peers.len()).collect();
    while !open.is_empty() && Instant::now() < until {
        let mut descriptors: Vec<PollFd<'_>> =
            open.iter().map(|index| PollFd::new(&peers[*index], PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match rustix::event::poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let at = Instant::now();
        for (index, descriptor) in open.iter().zip(&descriptors) {
            let events = descriptor.revents();
            if events.intersects(PollFlags::ERR | PollFlags::HUP) {
                ends[*index] = Some((End::Reset, at));
            } else if !events.is_empty() {
                ends[*index] = Some((End::Fin, at));
            }
        }
        drop(descriptors);
        open.retain(|index| ends[*index].is_none());
    }
    Ok(ends)
}
