#![no_main]

#[path = "../../tests/simulation/oracle.rs"]
#[expect(dead_code, reason = "only the tests check the bytes sent")]
mod oracle;
#[path = "../../tests/fuzz_targets/server_handshake.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: target::Input| target::run(input));
