//! Derives the seeds of random contents and faults.

/// Derives the seed of the scenario, check or case `name` from the seed of the run, so that it does
/// not depend on the selection of scenarios.
pub fn seed_for(name: &str, seed: u64) -> u64 {
    name.bytes()
        .fold(seed, |seed, byte| seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into()))
}
