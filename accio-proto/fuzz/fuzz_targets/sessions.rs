#![no_main]

#[path = "../../tests/simulation/oracle.rs"]
mod oracle;
#[path = "../../tests/simulation/plan.rs"]
mod plan;
#[path = "../../tests/simulation/sink.rs"]
mod sink;
#[path = "../../tests/simulation/socket.rs"]
mod socket;
#[path = "../../tests/simulation/world.rs"]
mod world;
#[path = "../../tests/fuzz_targets/sessions.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input<'_>| target::run(input));
