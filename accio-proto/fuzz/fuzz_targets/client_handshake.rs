#![no_main]

#[path = "../targets/client_handshake.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input| target::run(input));
