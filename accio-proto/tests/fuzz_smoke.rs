//! Runs the fuzz targets on the stable toolchain, with pseudo-random input that contains words of
//! the protocol. This does not replace fuzzing, but keeps the targets working and repeats inputs
//! that a fuzzer once found. `ACCIO_FUZZ_RUNS=…` sets the number of runs per target.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

#[path = "fuzz_targets/client_handshake.rs"]
mod client_handshake;
#[path = "simulation/connection.rs"]
mod connection;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "fuzz_targets/networks.rs"]
mod networks;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "fuzz_targets/ports.rs"]
mod ports;
#[path = "fuzz_targets/server_handshake.rs"]
mod server_handshake;
#[path = "fuzz_targets/sessions.rs"]
mod sessions;
#[path = "simulation/sink.rs"]
mod sink;
#[path = "simulation/socket/mod.rs"]
mod socket;
#[path = "simulation/world/mod.rs"]
mod world;

use arbitrary::{Arbitrary, Unstructured};
use plan::Random;

/// Inputs that random bytes would hardly ever contain.
const WORDS: [&[u8]; 12] = [
    b"accio\r\n",
    b"confirm-accio\r\n",
    b"confirm-accio-again\r\n\r\n",
    b"confirm-",
    b"\r\n",
    b"10.0.0.0/8",
    b"::ffff:10.1.2.3/104",
    b"fe80::1%eth0",
    b"/",
    b"65535",
    b"+1",
    b"ERROR",
];

/// Generates input from a seed: words and random bytes.
fn bytes(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.below(12) {
        if random.below(2) == 0 {
            bytes.extend_from_slice(WORDS[random.below(WORDS.len() as u64) as usize]);
        } else {
            bytes.extend((0..random.below(24)).map(|_| random.below(256) as u8));
        }
    }
    bytes
}

fn smoke<'a, T: Arbitrary<'a>>(inputs: &'a [Vec<u8>], run: fn(T)) {
    for (seed, input) in inputs.iter().enumerate() {
        if let Ok(input) = T::arbitrary_take_rest(Unstructured::new(input)) {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(input)));
            if let Err(panic) = outcome {
                eprintln!("with the bytes of seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn inputs() -> Vec<Vec<u8>> {
    let runs = std::env::var("ACCIO_FUZZ_RUNS").map_or(5_000, |runs| runs.parse().unwrap());
    (0..runs).map(|seed| bytes(&mut Random::new(seed))).collect()
}

#[test]
fn every_target_passes() {
    let inputs = inputs();
    smoke(&inputs, client_handshake::run);
    smoke(&inputs, server_handshake::run);
    smoke(&inputs, ports::run);
    smoke(&inputs, networks::run);
    smoke(&inputs, sessions::run);
}
