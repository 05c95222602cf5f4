//! `--verify`: compares a directory with a journal.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

use accio_harness::peer::read;
use accio_harness::tools;
use serde_json::Value;

use super::harness::{Place, Server, command, connect, program, run, upload};
use super::usage::fails;

const SOON: Duration = Duration::from_secs(2);

fn verify(place: &Place, flags: &[&str]) -> Output {
    let mut command = program();
    command.arg("--verify").arg(place.path("log/journal")).arg(place.path("received"));
    command.args(flags).stdout(Stdio::piped()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Receives three complete files and a failed one.
fn receive(place: &Place, flags: &[&str]) {
    let journal = place.text("log/journal");
    let flags = [&["--journal", &journal, "--timeout", "1"], flags].concat();
    let server = Server::start(place, &flags);
    for content in [&b""[..], b"content", &[7; 300_000]] {
        upload(server.address(), content).unwrap();
    }
    let silent = connect(server.address()).unwrap();
    read(silent, &mut [0]).unwrap_err();
    server.stop(SOON);
}

#[test]
fn received_files_match_the_journal_until_they_are_changed() {
    let place = Place::new();
    receive(&place, &["--digest", "blake3"]);
    let output = verify(&place, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let same = "4.file: ERROR: idle\n3 complete, 1 ERROR, 0 missing, 0 changed, 0 unlisted\n";
    assert_eq!(text(&output.stdout), same);

    let file = |name: &str| place.path("received").join(name);
    fs::write(file("1.file"), "x").unwrap();
    fs::write(file("2.file"), "CONTENT").unwrap();
    fs::remove_file(file("3.file")).unwrap();
    fs::write(file("9.file"), "").unwrap();
    let output = verify(&place, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = text(&output.stdout);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[0], "1.file: changed: it has 1 bytes instead of 0");
    assert!(lines[1].starts_with("2.file: changed: its digest is blake3:"), "{stdout}");
    assert_eq!(lines[2..5], ["3.file: missing", "4.file: ERROR: idle", "9.file: unlisted"]);
    assert_eq!(lines[5], "0 complete, 1 ERROR, 1 missing, 2 changed, 1 unlisted");
    let output = verify(&place, &["-q"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));

    let output = verify(&place, &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let objects: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> = objects.iter().map(|object| object["finding"].as_str().unwrap()).collect();
    assert_eq!(found, ["changed", "changed", "missing", "error", "unlisted", "summary"]);
    assert_eq!((&objects[3]["file"], &objects[3]["reason"]), (&"4.file".into(), &"idle".into()));
    let summary = &objects[5];
    assert_eq!((&summary["changed"], &summary["size_only"]), (&2.into(), &0.into()));
}

#[test]
fn a_second_run_replaces_files_and_a_torn_line_is_reported() {
    let place = Place::new();
    receive(&place, &[]);
    // Begins again at 1, and with it the records.
    let journal = place.text("log/journal");
    let server = Server::start(&place, &["--journal", &journal]);
    upload(server.address(), b"another content").unwrap();
    server.stop(SOON);
    let mut file = fs::OpenOptions::new().append(true).open(&journal).unwrap();
    file.write_all(b"{\"time\":\"2026-11-21T01:25:02Z\",\"lost\":3}\n{\"id\":1,\"byt").unwrap();
    let output = verify(&place, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("\n3 complete, 1 ERROR, 0 missing, 0 changed, 0 unlisted\n"),
        "{stdout}"
    );
    for note in [
        "note: 3 complete files were compared by size only, without a digest",
        "note: the journal lacks 3 lines that the server could not write",
        "note: 1 line of the journal cannot be read",
    ] {
        assert!(stdout.contains(note), "{stdout}");
    }
}

#[test]
fn the_journal_may_be_standard_input() {
    let place = Place::new();
    receive(&place, &[]);
    let mut command = program();
    command.arg("--verify").arg("-").arg(place.path("received"));
    command.stdin(fs::File::open(place.path("log/journal")).unwrap());
    assert_eq!(command.stdout(Stdio::piped()).output().unwrap().status.code(), Some(0));
}

#[test]
fn a_closed_standard_input_is_not_an_empty_journal() {
    let place = Place::new();
    fs::create_dir(place.path("received")).unwrap();
    let mut shell = command("sh");
    shell.args(["-c", "exec \"$0\" --verify - \"$1\" <&-"]);
    shell.arg(program().get_program()).arg(place.path("received"));
    let output = run(shell).unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("cannot read the journal"), "{output:?}");
}

#[test]
fn a_malformed_or_unknown_digest_is_not_a_match() {
    let place = Place::new();
    fs::create_dir(place.path("received")).unwrap();
    let mut journal = String::new();
    for (id, digest) in [(1, format!("sha256:{}", "a".repeat(63))), (2, "md5:00".to_owned())] {
        fs::write(place.path("received").join(format!("{id}.file")), "abc").unwrap();
        journal += &format!(
            "{{\"id\":{id},\"bytes\":3,\"digest\":\"{digest}\",\"outcome\":\"complete\"}}\n"
        );
    }
    fs::write(place.path("log/journal"), journal).unwrap();
    let output = verify(&place, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = text(&output.stdout);
    assert!(
        stdout.contains("2.file: unverifiable: the digest in the journal, \"md5:00\""),
        "{stdout}"
    );
    let numbers = "\n0 complete, 0 ERROR, 0 missing, 0 changed, 0 unlisted, 2 unverifiable\n";
    assert!(stdout.contains(numbers), "{stdout}");
}

#[test]
fn an_unreadable_journal_or_directory_is_an_error() {
    let place = Place::new();
    let (journal, dir) = (place.text("log/journal"), place.dir());
    let line = fails(2, &["--verify", &journal, &dir]);
    assert!(line.contains("cannot read the journal") && line.contains("no such file"), "{line}");
    fs::write(&journal, "").unwrap();
    let line = fails(2, &["--verify", &journal, &dir]);
    assert!(line.contains("cannot read") && line.contains("received"), "{line}");
    for flags in [
        &["--verify", &journal][..],
        &["--verify", &journal, &dir, "5000"],
        &["--verify", &journal, &dir, "5000", &dir],
        &["5000"],
    ] {
        let line = fails(2, flags);
        assert!(line.contains("--verify <JOURNAL> <FILE-DIR>"), "{flags:?}: {line}");
    }
    let line = fails(2, &["5000", &dir, "--json"]);
    assert!(line.contains("--json: applies to --verify only"), "{line}");
    assert!(!place.path("received").exists());
}

#[test]
fn a_file_that_cannot_be_read_is_reported_and_the_others_are_compared() {
    let place = Place::new();
    receive(&place, &["--digest", "blake3"]);
    fs::write(place.path("received/3.file"), "x").unwrap();
    if let Err(why) = tools::require_tracing() {
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
        return;
    }
    // Root can read every file, so the call itself must fail.
    let mut traced = command("strace");
    traced
        .args(["-f", "-qq", "-o", &place.text("log/trace"), "-P"])
        .arg(place.path("received/2.file"));
    traced.args(["-e", "inject=openat:error=EACCES"]).arg(program().get_program());
    traced.arg("--verify").arg(place.path("log/journal")).arg(place.path("received"));
    let output = run(traced).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = [
        "2.file: unreadable: permission denied",
        "3.file: changed: it has 1 bytes instead of 300000",
        "4.file: ERROR: idle",
        "1 complete, 1 ERROR, 0 missing, 1 changed, 0 unlisted, 1 unreadable",
    ];
    assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>(), lines);
}
