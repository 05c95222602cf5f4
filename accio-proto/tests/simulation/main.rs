//! Whole sessions against simulated sockets, a simulated sink and virtual time, judged by a small
//! independent oracle. Everything is drawn from a seed: `ACCIO_SIM_SEED=… cargo test -p accio-proto
//! --test simulation` replays one run, `ACCIO_SIM_RUNS=…` sets how many sessions are run.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod oracle;
mod plan;
mod sink;
mod socket;
mod world;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use plan::Random;
use world::World;

/// Sessions in a normal test run: a few seconds without optimisation.
const SESSIONS: u64 = 100_000;

/// Says how to replay a run that panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay: ACCIO_SIM_SEED={} cargo test -p accio-proto --test simulation",
                self.0
            );
        }
    }
}

/// Runs one seed and says how many sessions it had, and how many of them were kept.
fn run(seed: u64, null: &Arc<File>) -> (u64, u64) {
    let _replay = Replay(seed);
    World::new(Random::new(seed), null).run()
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value:?} is no number")))
}

#[test]
fn sessions_keep_their_promises_whatever_happens() {
    let null = Arc::new(File::options().write(true).open("/dev/null").unwrap());
    if let Some(seed) = number("ACCIO_SIM_SEED") {
        run(seed, &null);
        return;
    }
    let wanted = number("ACCIO_SIM_RUNS").unwrap_or(SESSIONS);
    let (seeds, sessions, kept) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while sessions.load(Ordering::Relaxed) < wanted {
                    let (run, complete) = run(seeds.fetch_add(1, Ordering::Relaxed), &null);
                    sessions.fetch_add(run, Ordering::Relaxed);
                    kept.fetch_add(complete, Ordering::Relaxed);
                }
            });
        }
    });
    let (sessions, kept) = (sessions.into_inner(), kept.into_inner());
    let rate = sessions as f64 / started.elapsed().as_secs_f64();
    println!("{sessions} sessions, {kept} kept, {rate:.0} a second");
    // A simulation in which everything fails, or nothing does, shows nothing.
    assert!(kept > sessions / 5 && kept < sessions * 4 / 5, "{kept} of {sessions}");
}
