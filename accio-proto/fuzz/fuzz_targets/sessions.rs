#![no_main]

#[path = "../../tests/simulation/connection.rs"]
mod connection;
#[path = "../../tests/simulation/judge.rs"]
mod judge;
#[path = "../../tests/simulation/oracle.rs"]
mod oracle;
#[path = "../../tests/simulation/plan.rs"]
mod plan;
#[path = "../../tests/simulation/sink.rs"]
mod sink;
#[path = "../../tests/simulation/socket/mod.rs"]
mod socket;
#[path = "../../tests/simulation/world/mod.rs"]
mod world;
#[path = "../../tests/fuzz_targets/sessions.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input<'_>| target::run(input));
