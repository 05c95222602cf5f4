#![no_main]

#[path = "../../tests/fuzz_targets/ports.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input<'_>| target::run(input));
