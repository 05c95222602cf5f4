//! Simulates whole sessions with simulated sockets, a simulated sink and virtual time, and checks
//! them with a small independent oracle. Everything is derived from a seed: `ACCIO_SIM_SEED=… cargo
//! test -p accio-proto --test simulation` replays one run, and `ACCIO_SIM_RUNS=…` sets the number
//! of sessions.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, reason = "a test")]

mod connection;
mod judge;
mod oracle;
mod plan;
mod sink;
mod socket;
mod world;

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use plan::Random;
use world::{Ends, World};

/// Number of sessions in a normal test run, which takes a few seconds without optimization.
const SESSIONS: u64 = 100_000;

/// Prints how to replay a run that panics.
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

/// Runs one seed and returns how its sessions ended.
fn run(seed: u64, null: &Arc<File>) -> Ends {
    let _replay = Replay(seed);
    World::new(Random::new(seed), null).run()
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value:?} is not a number")))
}

#[test]
fn sessions_satisfy_the_oracle_under_any_events() {
    let null = Arc::new(File::options().write(true).open("/dev/null").unwrap());
    if let Some(seed) = number("ACCIO_SIM_SEED") {
        run(seed, &null);
        return;
    }
    let wanted = number("ACCIO_SIM_RUNS").unwrap_or(SESSIONS);
    let (seeds, sessions, ends) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Ends::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while sessions.load(Ordering::Relaxed) < wanted {
                    let run = run(seeds.fetch_add(1, Ordering::Relaxed), &null);
                    sessions.fetch_add(run.values().sum(), Ordering::Relaxed);
                    let mut ends = ends.lock().unwrap();
                    run.iter().for_each(|(end, count)| *ends.entry(end).or_default() += count);
                }
            });
        }
    });
    let (sessions, ends) = (sessions.into_inner(), ends.into_inner().unwrap());
    let rate = sessions as f64 / started.elapsed().as_secs_f64();
    println!("{sessions} sessions, {rate:.0} a second: {ends:?}");
    // A simulation in which everything fails, or nothing does, proves nothing.
    let count = |end| ends.get(end).copied().unwrap_or(0);
    let kept = count("kept");
    assert!(kept > sessions / 5 && kept < sessions * 4 / 5, "{ends:?}");
    for end in
        ["idle", "slow", "long", "large", "reset", "handshake", "full", "shutdown", "abandoned"]
    {
        assert!(sessions < 10_000 || count(end) >= sessions / 2_000, "{end}: {ends:?}");
    }
}
