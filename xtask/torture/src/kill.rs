//! SIGKILL at random points under load: of servers, of clients.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::folder_oracle::{content, survey};
use super::load::load_until;
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::verdict::{During, Verdict, ensure};

/// Clients that upload side by side.
const CLIENTS: usize = 6;
/// The longest a server lives under load before it is killed.
const LIFE: u64 = 25_000;
/// Points of one case.
const POINTS: usize = 50;

pub(super) fn cases(plan: &RunOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let ways: [(&str, &'static [&'static str]); 4] = [
        ("plain", &[]),
        ("durable", &["--durable"]),
        ("named", &["--without", "tmpfile"]),
        ("portable", &["--without", "tmpfile", "--without", "splice"]),
    ];
    for round in 0..plan.scale(1, 12) {
        for (way, flags) in ways {
            let points = if plan.quick { POINTS / 2 } else { POINTS };
            let name = format!("kill/server/{way}-{round}");
            let about = "whole files and markers only, nothing left over, every confirmed one kept";
            cases.push(Case::new(name, about, move |context| servers(context, flags, points)));
        }
        for size in [0, 20_000, 3_000_000, 30_000_000] {
            let points = if plan.quick { POINTS / 4 } else { POINTS };
            let name = format!("kill/client/{size}-{round}");
            let about = "a killed client's file is ERROR, whole or absent, never a part";
            cases.push(Case::new(name, about, move |context| clients(context, size, points)));
        }
    }
    cases
}

/// Kills a server again and again, each time on the folder of the one before.
fn servers(context: &Context, flags: &[&str], points: usize) -> Verdict<String> {
    let mut random = fastrand::Rng::with_seed(context.seed());
    let dir = context.fresh("received");
    let mut tag = 0;
    let (mut confirmed, mut whole, mut errors) = (0, 0, 0);
    for point in 0..points {
        // Each server starts at id 1 and replaces existing files: look before that happens.
        let _ = fs::remove_dir_all(&dir);
        let server = context.server_into(&dir, flags)?;
        let address = server.address();
        let life = Duration::from_micros(random.u64(..LIFE));
        let first = tag;
        let sizes: Vec<usize> = (0..64).map(|_| size(&mut random)).collect();
        let (killed, told) = load_until(address, CLIENTS, &mut tag, &sizes, || {
            thread::sleep(life);
            server.process.signal(Signal::KILL)
        });
        killed?;
        let mut server = server;
        server.process.wait(SOON)?;
        let place = || format!("point {point}, killed after {life:?}, contents from {first}");

        let mut found = survey(&dir).during(place)?;
        // What has a hidden name was on its way; it may be torn, and must go with the next start.
        found.hidden.clear();
        found.ensure_clean().during(place)?;
        found.ensure_kept(&told).during(place)?;
        ensure(found.empty == 0, "no empty file", || found.empty.to_string()).during(place)?;
        let next = context.server_into(&dir, flags)?;
        let again = survey(&dir).during(place)?;
        again.ensure_clean().during(|| "started again").during(place)?;
        again.ensure_kept(&told).during(place)?;
        next.stop()?;
        confirmed += told.len();
        whole += found.whole.len();
        errors += found.errors;
    }
    Ok(format!("{points} points, {confirmed} confirmed, {whole} whole, {errors} markers"))
}

/// Mostly small ones, some that take a while.
fn size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..10) {
        0..4 => random.usize(16..2_000),
        4..8 => random.usize(2_000..300_000),
        _ => random.usize(300_000..6_000_000),
    }
}

/// Kills clients at random points of their lives.
fn clients(context: &Context, length: usize, points: usize) -> Verdict<String> {
    let mut random = fastrand::Rng::with_seed(context.seed());
    let server = context.server(&[])?;
    let mut succeeded = Vec::new();
    let mut empty = 0;
    // How long one takes that is left alone.
    let file = context.file(&bytes(1, length))?;
    let mut client = context.client("127.0.0.1", server.port, &file, &[])?;
    let exit = client.wait(SOON)?;
    let life = exit.at.saturating_duration_since(client.started());
    for point in 0..points as u64 {
        let tag = point + 2;
        let file = context.file(&bytes(tag, length))?;
        let mut client = context.client("127.0.0.1", server.port, &file, &[])?;
        thread::sleep(life.mul_f64(random.f64() * 1.2));
        // It may be through already.
        let _ = client.signal(Signal::KILL);
        let exit = client.wait(SOON)?;
        if exit.status.code() == Some(0) {
            succeeded.push(tag);
            empty += usize::from(length == 0);
        }
        fs::remove_file(file)?;
    }
    // One more that is left alone; the server has dealt with all others by its end.
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
        ensure(found.empty > empty, "an empty file for each that succeeded", || {
            format!("{} for {empty} and one more", found.empty)
        })?;
    }
    let (whole, errors) = (found.whole.len() + found.empty, found.errors);
    server.stop()?;
    let done = succeeded.len();
    Ok(format!("{points} points, {done} succeeded before, {whole} whole, {errors} markers"))
}

fn bytes(tag: u64, length: usize) -> Vec<u8> {
    if length == 0 { Vec::new() } else { content(tag, length) }
}
