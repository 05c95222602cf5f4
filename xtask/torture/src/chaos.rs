//! Transfers through a proxy that slices, delays, stalls, half-closes and resets connections.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use accio_proto::{Client, Dialect as Spoken};

use super::directory_oracle::{STAMP, content, survey};
use super::fault_proxy::{FaultProxy, ProxyEnd, Relayed, Script};
use super::load::{Ending, UploadOutcome, upload};
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::{Dialect, SOON};
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};

/// Number of transfers per case, all to one server.
const TRANSFERS: usize = 2_512;
/// Number of concurrent connections.
const LANES: usize = 16;

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let modes: [(&str, &'static [&'static str]); 4] = [
        ("plain", &[]),
        ("one-worker", &["--workers", "1"]),
        ("named", &["--without", "tmpfile", "--without", "splice"]),
        ("durable", &["--durable"]),
    ];
    let mut cases = Vec::new();
    for round in 0..options.scale(1, 10) {
        for (mode, flags) in modes {
            let transfers = if options.quick { TRANSFERS / 3 } else { TRANSFERS };
            let name = format!("chaos/{mode}-{round}");
            let about = "a file is complete if FIN came before any reset, and ERROR otherwise";
            cases.push(Case::new(name, about, move |context| chaos(context, flags, transfers)));
        }
    }
    cases
}

/// The files that the transfers of a lane should leave.
#[derive(Debug, Default)]
struct Expected {
    whole: Vec<u64>,
    /// A description of each transfer in `whole`, for messages.
    descriptions: Vec<String>,
    starts: Vec<(u64, usize)>,
    empty: usize,
    errors: usize,
}

fn chaos(context: &Context, flags: &[&str], transfers: usize) -> Verdict<String> {
    let server = context.server(flags)?;
    let address = server.address();
    let each = transfers / LANES;
    let results: Vec<Verdict<Expected>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let seed = context.seed().wrapping_add(lane as u64 * 0x9e37_79b9);
                scope.spawn(move || run_lane(address, lane, each, seed))
            })
            .collect();
        lanes
            .into_iter()
            .map(|lane| {
                lane.join().unwrap_or_else(|_| Err(Stop::Trouble("a lane panicked".into())))
            })
            .collect()
    });
    let mut expected = Expected::default();
    for result in results {
        let lane = result?;
        expected.whole.extend(lane.whole);
        expected.descriptions.extend(lane.descriptions);
        expected.starts.extend(lane.starts);
        expected.empty += lane.empty;
        expected.errors += lane.errors;
    }
    let total = each * LANES;
    // The server may not have seen the last resets yet, nor given the last files their names.
    wait_until(SOON, || {
        let names = server.listing().unwrap_or_default();
        names.len() == total && !names.iter().any(|name| name.starts_with('.'))
    });
    let found = survey(&server.dir)?;
    let lost = expected.whole.iter().zip(&expected.descriptions);
    let lost: Vec<&String> = lost
        .filter(|(tag, _)| !found.whole.contains_key(tag))
        .map(|(_, description)| description)
        .collect();
    ensure(lost.is_empty(), "every file whose FIN came first to be whole", || {
        format!("{} are not, such as {:?}", lost.len(), &lost[..lost.len().min(3)])
    })?;
    ensure_eq("whole files", expected.whole.len(), found.whole.len())?;
    let mut starts = found.partial.clone();
    starts.sort_unstable();
    expected.starts.sort_unstable();
    ensure(starts == expected.starts, "each half-closed file to end where FIN came", || {
        let differ = |one: &[(u64, usize)], other: &[(u64, usize)]| -> Vec<(u64, usize)> {
            one.iter().copied().filter(|start| !other.contains(start)).collect()
        };
        let (lost, surplus) =
            (differ(&expected.starts, &starts), differ(&starts, &expected.starts));
        format!("missing {lost:?}, unexpected {surplus:?}")
    })?;
    ensure_eq("empty files", expected.empty, found.empty)?;
    ensure_eq("error markers", expected.errors, found.errors)?;
    ensure(found.hidden.is_empty(), "no hidden name", || format!("{:?}", found.hidden))?;
    server.stop()?;
    let (whole, starts) = (expected.whole.len(), expected.starts.len());
    let (empty, errors) = (expected.empty, expected.errors);
    Ok(format!(
        "{total} transfers: {whole} whole, {starts} half-closed, {empty} empty, {errors} ERROR"
    ))
}

/// Runs transfers one after the other through their own proxy.
fn run_lane(server: SocketAddr, lane: usize, count: usize, seed: u64) -> Verdict<Expected> {
    let proxy = FaultProxy::new(server)?;
    let address = proxy.address()?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut expected = Expected::default();
    let (scripts, pending) = mpsc::channel::<Script>();
    let (report, reports) = mpsc::channel();
    let handler = thread::spawn(move || {
        while let Ok(script) = pending.recv() {
            if report.send(proxy.handle(&script)).is_err() {
                return;
            }
        }
    });
    for number in 0..count {
        let tag = (lane * 1_000_000 + number + 1) as u64;
        let length = length(&mut random);
        let bytes = if length == 0 { Vec::new() } else { content(tag, length) };
        let confirms = random.u8(..4) == 0;
        let script = random_script(&mut random, bytes.len(), confirms);
        let hangs_up =
            script.end == ProxyEnd::Unchanged && random.u8(..8) == 0 && !bytes.is_empty();
        scripts.send(script.clone()).map_err(|_| Stop::Trouble("the proxy is gone".into()))?;
        // Half of the transfers use the library's client, the others a plain socket.
        let confirmed = if !hangs_up && random.bool() {
            let dialect = if confirms { Spoken::Confirm } else { Spoken::Accio };
            let client = Client::builder().dialect(dialect).build();
            let client = client.map_err(|error| Stop::Trouble(error.to_string()))?;
            let sent = client.send("127.0.0.1", address.port(), bytes.as_slice());
            sent.is_ok_and(|sent| sent.confirmed)
        } else {
            let dialect = if confirms { Dialect::Confirm } else { Dialect::Accio };
            let ending = if hangs_up { Ending::Reset } else { Ending::Fin };
            let part = if hangs_up { bytes.len() / 2 } else { bytes.len() };
            upload(address, dialect, &bytes[..part], ending, Duration::from_secs(20))
                == UploadOutcome::Confirmed
        };
        let relayed: Relayed = reports
            .recv_timeout(Duration::from_secs(60))
            .map_err(|_| Stop::Trouble("the proxy hangs".into()))??;
        let place = || format!("transfer {tag}: {length} bytes, {script:?}, relayed {relayed:?}");

        // The confirmations precede the content.
        let opening = if confirms { Dialect::Confirm.confirmations().len() } else { 0 };
        let arrived = relayed.bytes.saturating_sub(opening);
        match (relayed.fin, arrived) {
            (false, _) => expected.errors += 1,
            // Cut within the confirmations: a server with `auto` would take them for content.
            (true, _) if relayed.bytes < opening => {
                return Err(Stop::Trouble(format!("cut in the handshake: {}", place())));
            }
            (true, 0) => expected.empty += 1,
            (true, _) if arrived == bytes.len() => {
                expected.whole.push(tag);
                expected.descriptions.push(place());
            }
            (true, _) => expected.starts.push((tag, arrived)),
        }
        let kept = relayed.fin && arrived == bytes.len();
        ensure(kept || !confirmed, "only whole files to be confirmed", place)?;
        let natural = script.end == ProxyEnd::Unchanged && !hangs_up;
        ensure(!natural || confirmed, "an undisturbed transfer to be confirmed", place)?;
    }
    drop(scripts);
    handler.join().map_err(|_| Stop::Trouble("a proxy panicked".into()))?;
    Ok(expected)
}

/// Returns a random file size: mostly small, sometimes more than one read.
fn length(random: &mut fastrand::Rng) -> usize {
    match random.u8(..16) {
        0 => 0,
        1..8 => random.usize(STAMP..600),
        8..15 => random.usize(600..20_000),
        _ => random.usize(20_000..300_000),
    }
}

fn random_script(random: &mut fastrand::Rng, length: usize, confirms: bool) -> Script {
    let opening = if confirms { Dialect::Confirm.confirmations().len() } else { 0 };
    // At least the stamp, so that the file can be identified.
    let within = |random: &mut fastrand::Rng| opening + random.usize(STAMP..length);
    let end = match random.u8(..10) {
        0 | 1 if length > STAMP => ProxyEnd::HalfClose(within(random)),
        2 | 3 if length > STAMP => ProxyEnd::Reset(within(random)),
        // Before any content, possibly in the middle of the handshake.
        4 if length > 0 => ProxyEnd::Reset(random.usize(0..=opening)),
        5 if length < 16_000 => ProxyEnd::ResetAfterFin,
        _ => ProxyEnd::Unchanged,
    };
    let (pause, pauses) = match random.u8(..20) {
        // A stall, much shorter than any timeout.
        0 => (Duration::from_millis(200), 8),
        1..8 => (Duration::from_millis(3), 60),
        _ => (Duration::ZERO, 0),
    };
    // Only short contents are sent in tiny slices.
    let slice = match random.u8(..4) {
        // A reset discards the bytes in the send queue. It must be empty by then, so send no more
        // segments than the initial window allows.
        _ if end == ProxyEnd::ResetAfterFin => 16 << 10,
        0 if length < 3_000 => random.usize(1..8),
        0 | 1 => random.usize(200..2_000),
        _ => 16 << 10,
    };
    Script { slice, pause, pauses, end, seed: random.u64(..) }
}
