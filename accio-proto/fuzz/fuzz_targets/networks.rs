#![no_main]

#[path = "../../tests/fuzz_targets/networks.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input<'_>| target::run(input));
