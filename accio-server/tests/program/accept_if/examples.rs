//! The commands for `--accept-if` that come with the server.

use std::fs;

use super::{SOON, rejected, start_as};
use crate::harness::{Place, Server, program, upload};

/// Returns the path of an example that comes with the server.
fn example(name: &str) -> String {
    format!("{}/dist/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_antivirus_example_rejects_what_the_scanner_finds() {
    let place = Place::new();
    // A stand-in with the output and the exit codes of the real program.
    place.script(
        "clamdscan",
        "[ \"$*\" = '--no-summary -' ] || exit 2\n\
         if grep -q EICAR; then echo 'stream: Eicar-Signature FOUND'; exit 1; fi\n\
         echo 'stream: OK'",
    );
    let journal = place.text("log/journal");
    let path = format!("{}:{}", place.text("."), std::env::var("PATH").unwrap());
    let mut command = program();
    command.env("PATH", path);
    let server = Server::start_as(
        command,
        &place,
        &["--bind", "127.0.0.1", "--accept-if", &example("accept-scan"), "--journal", &journal],
    );
    upload(server.address(), b"harmless").unwrap();
    let line = rejected(&place, &server, b"X5O!P%@AP EICAR-STANDARD-ANTIVIRUS-TEST-FILE");
    assert_eq!(line["error"], "rejected: stream: Eicar-Signature FOUND");
    assert_eq!(place.read(1).unwrap(), b"harmless");
    server.stop(SOON);
}

#[test]
fn the_example_for_sizes_knows_its_senders() {
    let place = Place::new();
    fs::write(place.path("limits"), "# bytes\n127.0.0.1 10\n* 5\n").unwrap();
    let command = format!("{} {}", example("accept-size"), place.text("limits"));
    let server = start_as(&place, &command, &[]);
    upload(server.address(), b"ten bytes!").unwrap();
    let line = rejected(&place, &server, b"eleven byte");
    assert_eq!(line["error"], "rejected: 11 bytes from 127.0.0.1; the limit is 10");
    // The limits are read for each file.
    fs::write(place.path("limits"), "* 5\n").unwrap();
    let line = rejected(&place, &server, b"ten bytes!");
    assert_eq!(line["error"], "rejected: 10 bytes from 127.0.0.1; the limit is 5");
    fs::write(place.path("limits"), "").unwrap();
    let line = rejected(&place, &server, b"");
    assert_eq!(line["error"], "rejected: no limit for 127.0.0.1");
    server.stop(SOON);
}
