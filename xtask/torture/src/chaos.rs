//! Transfers through a proxy that slices, delays, stalls, half-closes and resets.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use accio_proto::{Client, Dialect as Spoken};

use super::fault_proxy::{End, Passed, Proxy, Script};
use super::folder_oracle::{STAMP, content, survey};
use super::load::{Ending, Fate, upload};
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::{Dialect, SOON};
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};

/// Transfers of one case, all to one server.
const TRANSFERS: usize = 2_512;
/// Connections at a time.
const LANES: usize = 16;

pub(super) fn cases(plan: &RunOptions) -> Vec<Case> {
    let ways: [(&str, &'static [&'static str]); 4] = [
        ("plain", &[]),
        ("one-worker", &["--workers", "1"]),
        ("named", &["--without", "tmpfile", "--without", "splice"]),
        ("durable", &["--durable"]),
    ];
    let mut cases = Vec::new();
    for round in 0..plan.scale(1, 10) {
        for (way, flags) in ways {
            let transfers = if plan.quick { TRANSFERS / 3 } else { TRANSFERS };
            let name = format!("chaos/{way}-{round}");
            let about = "every file is whole if and only if FIN came first, else ERROR";
            cases.push(Case::new(name, about, move |context| chaos(context, flags, transfers)));
        }
    }
    cases
}

/// The expected results of one lane's transfers.
#[derive(Debug, Default)]
struct Expected {
    whole: Vec<u64>,
    /// How each of them went, for people.
    stories: Vec<String>,
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
        expected.stories.extend(lane.stories);
        expected.starts.extend(lane.starts);
        expected.empty += lane.empty;
        expected.errors += lane.errors;
    }
    let total = each * LANES;
    wait_until(SOON, || server.listing().is_ok_and(|names| names.len() >= total));
    // A reset that was just sent may still have to be seen, a name still be replaced.
    wait_until(SOON, || server.listing().is_ok_and(|names| names.len() == total));
    let found = survey(&server.dir)?;
    let lost = expected.whole.iter().zip(&expected.stories);
    let lost: Vec<&String> =
        lost.filter(|(tag, _)| !found.whole.contains_key(tag)).map(|(_, story)| story).collect();
    ensure(lost.is_empty(), "every file whose FIN came first to be whole", || {
        format!("{} are not, such as {:?}", lost.len(), &lost[..lost.len().min(3)])
    })?;
    ensure_eq("whole files", expected.whole.len(), found.whole.len())?;
    let mut starts = found.starts.clone();
    starts.sort_unstable();
    expected.starts.sort_unstable();
    ensure(
        starts == expected.starts,
        "the files that were half-closed, as far as they came",
        || {
            let differ = |one: &[(u64, usize)], other: &[(u64, usize)]| -> Vec<(u64, usize)> {
                one.iter().copied().filter(|start| !other.contains(start)).collect()
            };
            let (lost, surplus) =
                (differ(&expected.starts, &starts), differ(&starts, &expected.starts));
            format!("without {lost:?}, with {surplus:?}")
        },
    )?;
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

/// Transfers one after the other through a proxy of their own.
fn run_lane(server: SocketAddr, lane: usize, count: usize, seed: u64) -> Verdict<Expected> {
    let proxy = Proxy::new(server)?;
    let address = proxy.address()?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut expected = Expected::default();
    let (plans, planned) = mpsc::channel::<Script>();
    let (report, reports) = mpsc::channel();
    let handler = thread::spawn(move || {
        while let Ok(plan) = planned.recv() {
            if report.send(proxy.handle(&plan)).is_err() {
                return;
            }
        }
    });
    for number in 0..count {
        let tag = (lane * 1_000_000 + number + 1) as u64;
        let length = length(&mut random);
        let bytes = if length == 0 { Vec::new() } else { content(tag, length) };
        let confirms = random.u8(..4) == 0;
        let plan = plan(&mut random, bytes.len(), confirms);
        let hangs_up = plan.end == End::Natural && random.u8(..8) == 0 && !bytes.is_empty();
        plans.send(plan.clone()).map_err(|_| Stop::Trouble("the proxy is gone".into()))?;
        // Our own client, or a socket of its simplest kind.
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
                == Fate::Confirmed
        };
        let passed: Passed = reports
            .recv_timeout(Duration::from_secs(60))
            .map_err(|_| Stop::Trouble("the proxy hangs".into()))??;
        let place = || format!("transfer {tag}: {length} bytes, {plan:?}, passed {passed:?}");

        // What comes before the content is no content.
        let opening = if confirms { Dialect::Confirm.confirmations().len() } else { 0 };
        let arrived = passed.bytes.saturating_sub(opening);
        match (passed.fin, arrived) {
            (false, _) => expected.errors += 1,
            // Cut within its confirmations, which `auto` then takes for content.
            (true, _) if passed.bytes < opening => {
                return Err(Stop::Trouble(format!("cut in the handshake: {}", place())));
            }
            (true, 0) => expected.empty += 1,
            (true, _) if arrived == bytes.len() => {
                expected.whole.push(tag);
                expected.stories.push(place());
            }
            (true, _) => expected.starts.push((tag, arrived)),
        }
        let kept = passed.fin && arrived == bytes.len();
        ensure(kept || !confirmed, "only whole files to be confirmed", place)?;
        let natural = plan.end == End::Natural && !hangs_up;
        ensure(!natural || confirmed, "an undisturbed transfer to be confirmed", place)?;
    }
    drop(plans);
    handler.join().map_err(|_| Stop::Trouble("a proxy panicked".into()))?;
    Ok(expected)
}

/// Small files, mostly; some that take more than one read.
fn length(random: &mut fastrand::Rng) -> usize {
    match random.u8(..16) {
        0 => 0,
        1..8 => random.usize(STAMP..600),
        8..15 => random.usize(600..20_000),
        _ => random.usize(20_000..300_000),
    }
}

fn plan(random: &mut fastrand::Rng, length: usize, confirms: bool) -> Script {
    let opening = if confirms { Dialect::Confirm.confirmations().len() } else { 0 };
    // A part that still tells whose it is.
    let within = |random: &mut fastrand::Rng| opening + random.usize(STAMP..length);
    let end = match random.u8(..10) {
        0 | 1 if length > STAMP => End::HalfClose(within(random)),
        2 | 3 if length > STAMP => End::Reset(within(random)),
        // Before any content, in the midst of the handshake maybe.
        4 if length > 0 => End::Reset(random.usize(0..=opening)),
        5 if length < 16_000 => End::ResetAfterFin,
        _ => End::Natural,
    };
    let (pause, pauses) = match random.u8(..20) {
        // A stall, well within everybody's patience.
        0 => (Duration::from_millis(200), 8),
        1..8 => (Duration::from_millis(3), 60),
        _ => (Duration::ZERO, 0),
    };
    // Byte by byte only what is short.
    let slice = match random.u8(..4) {
        // A reset throws away what still waits to be sent: nothing may, so no more segments than
        // the first window takes.
        _ if end == End::ResetAfterFin => 16 << 10,
        0 if length < 3_000 => random.usize(1..8),
        0 | 1 => random.usize(200..2_000),
        _ => 16 << 10,
    };
    Script { slice, pause, pauses, end, seed: random.u64(..) }
}
