//! `--digest`: the digest is in the journal and in the environment of commands, and nowhere else.

use std::time::Duration;

use accio_harness::payload;

use super::harness::{Place, Server, command, json_lines, run, until, upload};
use super::usage::fails;

const SOON: Duration = Duration::from_secs(2);

/// Returns the digest computed by another program.
fn sha256sum(path: &str) -> String {
    let mut command = command("sha256sum");
    command.arg(path);
    let output = run(command).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split(' ').next().unwrap())
}

#[test]
fn writes_digests_to_the_journal_and_the_environment_of_commands() {
    let place = Place::new();
    let script = place.script("hook", "echo \"$ACCIO_FILE_DIGEST\" >>\"$0.out\"");
    let journal = place.text("log/journal");
    let flags = ["--digest", "sha256", "--journal", &journal, "--on-commit", &script];
    let server = Server::start(&place, &[&flags[..], &["--drain", "10"]].concat());
    let big = payload::bytes(1, 2_000_000);
    for content in [&b""[..], b"content", b"confirm-accio\r\n and more", &big] {
        upload(server.address(), content).unwrap();
    }
    until("four lines", || json_lines(&place.path("log/journal")).len() == 4);
    server.stop(Duration::from_secs(10));
    let lines = json_lines(&place.path("log/journal"));
    let mut digests: Vec<_> =
        lines.iter().map(|line| line["digest"].as_str().unwrap().to_owned()).collect();
    for (id, digest) in (1..).zip(&digests) {
        assert_eq!(*digest, sha256sum(&place.text(&format!("received/{id}.file"))), "{id}");
    }
    let out = std::fs::read_to_string(place.path("hook.out")).unwrap();
    let mut printed: Vec<_> = out.lines().map(str::to_owned).collect();
    printed.sort();
    digests.sort();
    assert_eq!(printed, digests);
    assert_eq!(std::fs::read_dir(place.path("received")).unwrap().count(), 4);
}

#[test]
fn writes_no_digest_for_a_failed_transfer_or_without_the_flag() {
    let place = Place::new();
    let journal = place.text("log/journal");
    let flags = ["--journal", &journal, "--max-size", "10", "--digest=blake3"];
    let server = Server::start(&place, &flags);
    upload(server.address(), b"larger than ten bytes").unwrap_err();
    server.stop(SOON);
    let server = Server::start(&place, &["--journal", &journal]);
    upload(server.address(), b"content").unwrap();
    server.stop(SOON);
    let lines = json_lines(&place.path("log/journal"));
    assert_eq!((&lines[0]["reason"], lines[0].get("digest")), (&"large".into(), None));
    assert_eq!((&lines[1]["outcome"], lines[1].get("digest")), (&"complete".into(), None));
}

#[test]
fn rejects_an_unknown_algorithm() {
    let place = Place::new();
    let line = fails(2, &["5000", &place.dir(), "--digest", "md5"]);
    assert!(line.contains("unknown digest algorithm \"md5\": use sha256 or blake3"), "{line}");
}

#[cfg(feature = "store-core")]
#[test]
fn computes_digests_of_files_in_a_store() {
    let place = Place::new();
    std::fs::create_dir(place.path("received")).unwrap();
    let journal = place.text("log/journal");
    let mut command = super::harness::program();
    command.arg(super::harness::free_port().to_string());
    command.arg(format!("file://{}", place.dir()));
    command.args(["--bind", "127.0.0.1", "--node", "one", "--digest", "sha256"]);
    let server = Server::spawn({
        command.args(["--journal", &journal]);
        command
    });
    upload(server.address(), b"content").unwrap();
    server.stop(Duration::from_secs(5));
    let lines = json_lines(&place.path("log/journal"));
    let digest = lines[0]["digest"].as_str().unwrap();
    assert_eq!(digest, sha256sum(&place.text("received/one/1.file")));
}
