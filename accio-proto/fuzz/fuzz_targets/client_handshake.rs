#![no_main]

#[path = "../../tests/fuzz_targets/client_handshake.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input| target::run(input));
