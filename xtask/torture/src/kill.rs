//! SIGKILL to servers and clients at random points under load.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::directory_oracle::{content, survey};
use super::load::load_until;
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::verdict::{During, Verdict, ensure};

/// Number of concurrent clients.
const CLIENTS: usize = 6;
/// Longest time, in microseconds, that a server runs under load before it is killed.
const LIFE: u64 = 25_000;
/// Number of kills per case.
const POINTS: usize = 50;

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let modes: [(&str, &'static [&'static str]); 5] = [
        ("plain", &[]),
        ("durable", &["--durable"]),
        ("named", &["--without", "tmpfile"]),
        ("portable", &["--without", "tmpfile", "--without", "splice"]),
        ("reviewed", &["--accept-if", "sleep 0.003", "--accept-jobs", "3"]),
    ];
    for round in 0..options.scale(1, 12) {
        for (mode, flags) in modes {
            let points = if options.quick { POINTS / 2 } else { POINTS };
            let name = format!("kill/server/{mode}-{round}");
            let about = "only whole files and markers are left, and every confirmed file is kept";
            cases.push(Case::new(name, about, move |context| servers(context, flags, points)));
        }
        for size in [0, 20_000, 3_000_000, 30_000_000] {
            let points = if options.quick { POINTS / 4 } else { POINTS };
            let name = format!("kill/client/{size}-{round}");
            let about = "the file of a killed client is ERROR, whole or absent, never partial";
            cases.push(Case::new(name, about, move |context| clients(context, size, points)));
        }
    }
    cases
}

/// Kills one server after the other, each after a random time under load.
fn servers(context: &Context, flags: &[&str], points: usize) -> Verdict<String> {
    let mut random = fastrand::Rng::with_seed(context.seed());
    let dir = context.fresh("received");
    let mut tag = 0;
    let (mut confirmed, mut whole, mut errors) = (0, 0, 0);
    for point in 0..points {
        // Each server numbers from 1 and replaces existing files, so it gets an empty directory.
        let _ = fs::remove_dir_all(&dir);
        let server = context.server_into(&dir, flags)?;
        let address = server.address();
        let life = Duration::from_micros(random.u64(..LIFE));
        let first = tag;
        let sizes: Vec<usize> = (0..64).map(|_| size(&mut random)).collect();
        let (killed, confirmed_tags) = load_until(address, CLIENTS, &mut tag, &sizes, |_| {
            thread::sleep(life);
            server.process.signal(Signal::KILL)
        });
        killed?;
        let mut server = server;
        server.process.wait(SOON)?;
        let place = || format!("point {point}, killed after {life:?}, contents from {first}");

        let mut found = survey(&dir).during(place)?;
        // Files with hidden names were incomplete. They may be torn; the next start must remove
        // them.
        found.hidden.clear();
        found.ensure_clean().during(place)?;
        found.ensure_kept(&confirmed_tags).during(place)?;
        ensure(found.empty == 0, "no empty file", || found.empty.to_string()).during(place)?;
        let next = context.server_into(&dir, flags)?;
        let again = survey(&dir).during(place)?;
        again.ensure_clean().during(|| "started again").during(place)?;
        again.ensure_kept(&confirmed_tags).during(place)?;
        next.stop()?;
        confirmed += confirmed_tags.len();
        whole += found.whole.len();
        errors += found.errors;
    }
    Ok(format!("{points} points, {confirmed} confirmed, {whole} whole, {errors} markers"))
}

/// Returns a random file size: mostly small, sometimes a few megabytes.
fn size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..10) {
        0..4 => random.usize(16..2_000),
        4..8 => random.usize(2_000..300_000),
        _ => random.usize(300_000..6_000_000),
    }
}

/// Kills clients at random points during their uploads.
fn clients(context: &Context, length: usize, points: usize) -> Verdict<String> {
    let mut random = fastrand::Rng::with_seed(context.seed());
    let server = context.server(&[])?;
    let mut succeeded = Vec::new();
    let mut empty = 0;
    // Measure how long an undisturbed client takes.
    let file = context.file(&bytes(1, length))?;
    let mut client = context.client("127.0.0.1", server.port, &file, &[])?;
    let exit = client.wait(SOON)?;
    let life = exit.at.saturating_duration_since(client.started());
    for point in 0..points as u64 {
        let tag = point + 2;
        let file = context.file(&bytes(tag, length))?;
        let mut client = context.client("127.0.0.1", server.port, &file, &[])?;
        thread::sleep(life.mul_f64(random.f64() * 1.2));
        // It may have ended already.
        let _ = client.signal(Signal::KILL);
        let exit = client.wait(SOON)?;
        if exit.status.code() == Some(0) {
            succeeded.push(tag);
            empty += usize::from(length == 0);
        }
        fs::remove_file(file)?;
    }
    // An undisturbed upload at the end: when it is complete, the server has seen all others.
    let last = points as u64 + 2;
    let file = context.file(&content(last, 1_000))?;
    context.send(server.port, &file, &[])?;
    let mut settled = 0;
    wait_until(Duration::from_secs(2), || {
        let now = server.listing().map_or(0, |names: BTreeSet<String>| names.len());
        std::mem::replace(&mut settled, now) == now
    });
    thread::sleep(Duration::from_millis(50));
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&[last])?;
    if length > 0 {
        found.ensure_kept(&succeeded)?;
        ensure(found.empty == 0, "no empty file", || format!("{} of them", found.empty))?;
    } else {
        ensure(found.empty > empty, "an empty file for each confirmed empty upload", || {
            format!("{} empty files for {} uploads", found.empty, empty + 1)
        })?;
    }
    let (whole, errors) = (found.whole.len() + found.empty, found.errors);
    server.stop()?;
    let done = succeeded.len();
    Ok(format!(
        "{points} points, {done} succeeded before the kill, {whole} whole, {errors} markers"
    ))
}

fn bytes(tag: u64, length: usize) -> Vec<u8> {
    if length == 0 { Vec::new() } else { content(tag, length) }
}
