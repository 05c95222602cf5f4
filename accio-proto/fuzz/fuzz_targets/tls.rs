#![no_main]

#[path = "../../tests/tls/pair.rs"]
mod pair;
#[path = "../../tests/fuzz_targets/tls.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input<'_>| target::run(input));
