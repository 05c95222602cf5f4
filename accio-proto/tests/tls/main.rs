//! Tests of TLS sockets and sessions without a network: the end of a file, truncation at every
//! point, and hostile peers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod attacks;
mod client;
mod early_content;
mod ends;
mod pair;
mod panics;
#[path = "../fuzz_targets/tls.rs"]
mod random;
mod server;
mod turns;

/// Returns content that differs at every position.
fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

#[test]
fn random_sessions_are_complete_exactly_if_closed_properly() {
    use arbitrary::{Arbitrary, Unstructured};

    let runs = std::env::var("ACCIO_FUZZ_RUNS").map_or(500, |runs| runs.parse().unwrap());
    for seed in 0..runs {
        let mut state: u64 = seed;
        let bytes: Vec<u8> = (0..120)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let input = random::Input::arbitrary_take_rest(Unstructured::new(&bytes)).unwrap();
        random::run(input);
    }
}
