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
const SESSIONS: u64 = 60_000;

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
fn run(seed: u64, null: &Arc<File>, secure: impl Fn(World) -> World) -> Ends {
    let _replay = Replay(seed);
    secure(World::new(Random::new(seed), null)).run()
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value:?} is not a number")))
}

/// Runs seeds until there were `wanted` sessions; returns how they ended. With `ACCIO_SIM_SEED`, it
/// runs that seed alone, and returns nothing.
fn run_all(wanted: u64, secure: impl Fn(World) -> World + Sync) -> Option<Ends> {
    let null = Arc::new(File::options().write(true).open("/dev/null").unwrap());
    if let Some(seed) = number("ACCIO_SIM_SEED") {
        run(seed, &null, secure);
        return None;
    }
    let wanted = number("ACCIO_SIM_RUNS").unwrap_or(wanted);
    let (seeds, sessions, ends) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Ends::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while sessions.load(Ordering::Relaxed) < wanted {
                    let run = run(seeds.fetch_add(1, Ordering::Relaxed), &null, &secure);
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
    Some(ends)
}

/// Checks that the sessions ended in many ways: a simulation in which everything fails, or nothing
/// does, proves nothing.
fn check_variety(ends: &Ends) {
    let sessions: u64 = ends.values().sum();
    let count = |end| ends.get(end).copied().unwrap_or(0);
    let kept = count("kept");
    assert!(kept > sessions / 10 && kept < sessions * 4 / 5, "{ends:?}");
    for end in
        ["idle", "slow", "long", "large", "reset", "handshake", "full", "shutdown", "abandoned"]
    {
        assert!(sessions < 10_000 || count(end) >= sessions / 2_000, "{end}: {ends:?}");
    }
}

#[test]
fn sessions_satisfy_the_oracle_under_any_events() {
    if let Some(ends) = run_all(SESSIONS, |world| world) {
        check_variety(&ends);
    }
}

/// The same with TLS, where a file must be complete exactly if the client closed it with
/// close_notify, and the client must see close_notify exactly if it is stored.
#[cfg(feature = "tls")]
#[test]
fn sessions_with_tls_satisfy_the_oracle_and_are_never_truncated() {
    // Without optimization, a session takes about 50 times as long as without TLS.
    if let Some(ends) = run_all(SESSIONS / 50, World::secured) {
        check_variety(&ends);
        assert!(ends.get("truncated") > Some(&20), "{ends:?}");
    }
}
