//! `--journal`: a line of JSON for every connection, in all circumstances.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::harness::{Over, Place, Server, connect, json_lines, program, upload};
use super::usage::fails;

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_line_says_all_about_a_connection() {
    let place = Place::new();
    let journal = place.text("log/journal");
    let server = Server::start(&place, &["--journal", &journal, "--timeout", "0.3"]);
    upload(server.address(), b"content").unwrap();
    let mut confirming = connect(server.address()).unwrap();
    confirming.write_all(b"confirm-accio\r\nconfirm-accio-again\r\n\r\n").unwrap();
    // It falls silent now.
    confirming.read_to_end(&mut Vec::new()).unwrap_err();
    let resetting = connect(server.address()).unwrap();
    rustix::net::sockopt::set_socket_linger(&resetting, Some(Duration::ZERO)).unwrap();
    let peer = resetting.local_addr().unwrap().to_string();
    drop(resetting);
    let path = place.path("log/journal");
    super::harness::until("three lines", || json_lines(&path).len() == 3);
    server.stop(SOON);

    let lines = json_lines(&path);
    let time: jiff::Timestamp = lines[0]["time"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time).as_secs_f64();
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z') && (0.0..60.0).contains(&age));
    assert_eq!((&lines[0]["id"], &lines[0]["bytes"]), (&1.into(), &7.into()));
    assert_eq!((&lines[0]["dialect"], &lines[0]["outcome"]), (&"accio".into(), &"complete".into()));
    assert!(lines[0].get("reason").is_none() && lines[0].get("error").is_none());
    assert_eq!((&lines[1]["dialect"], &lines[1]["reason"]), (&"confirm".into(), &"idle".into()));
    assert_eq!(lines[1]["error"], "no data for 0.3 s");
    assert!((0.3..0.9).contains(&lines[1]["duration"].as_f64().unwrap()));
    assert_eq!((&lines[2]["outcome"], &lines[2]["reason"]), (&"error".into(), &"reset".into()));
    assert_eq!((&lines[2]["peer"], &lines[2]["dialect"]), (&peer.into(), &().into()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o137, 0, "it is not for everyone to read");
}

#[test]
fn rotation_under_load_loses_and_splits_no_line() {
    let place = Place::new();
    let journal = place.text("log/journal");
    // Confined where the kernel can, which must not keep it from opening the file anew.
    let server = Server::start(&place, &["--journal", &journal, "-v"]);
    let over = AtomicBool::new(false);
    let sent: u64 = thread::scope(|scope| {
        let end = Over(&over);
        let load = || {
            let mut sent = 0;
            while !over.load(Ordering::SeqCst) {
                upload(server.address(), b"content").unwrap();
                sent += 1;
            }
            sent
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        for round in 0..10 {
            thread::sleep(Duration::from_millis(20));
            fs::rename(&journal, place.path(&format!("log/journal.{round}"))).unwrap();
            server.signal(Signal::HUP);
            super::harness::until("it is opened anew", || place.path("log/journal").exists());
        }
        drop(end);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(server.count("opened anew"), 10);
    server.stop(SOON);
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(place.path("log")).unwrap() {
        for line in json_lines(&entry.unwrap().path()) {
            assert!(ids.insert(line["id"].as_u64().unwrap()), "{line} is there twice");
        }
    }
    assert_eq!(ids, (1..=sent).collect());
}

#[test]
fn it_is_refused_among_the_files() {
    let place = Place::new();
    fs::create_dir_all(place.path("received/below")).unwrap();
    symlink(place.path("received"), place.path("alias")).unwrap();
    symlink(place.path("received/linked"), place.path("log/link")).unwrap();
    fs::write(place.path("received/linked"), "").unwrap();
    for path in [
        "received/journal",
        "received/below/journal",
        "alias/journal",
        "log/link",
        "received/../received/journal",
    ] {
        let line = fails(2, &["5000", &place.dir(), "--journal", &place.text(path)]);
        assert!(line.contains("where the clients' files are"), "{line}");
    }
    assert!(!place.path("received/journal").exists());
    for path in ["no/such/dir/journal", "log"] {
        let line = fails(1, &["5000", &place.dir(), "--journal", &place.text(path)]);
        assert!(line.contains("cannot open the journal"), "{line}");
    }
}

#[test]
fn stdout_has_it_when_asked() {
    let place = Place::new();
    let mut command = program();
    command.stdout(Stdio::piped());
    let flags = ["--journal", "-", "--bind", "127.0.0.1"];
    let mut server = Server::start_as(command, &place, &flags);
    let mut stdout = server.child().stdout.take().unwrap();
    upload(server.address(), b"content").unwrap();
    server.stop(SOON);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((&line["bytes"], text.lines().count()), (&7.into(), 1));
}

#[test]
fn one_that_cannot_be_written_is_told_once_and_harms_nothing() {
    let place = Place::new();
    let server = Server::start(&place, &["--journal", "/dev/full"]);
    for _ in 0..5 {
        upload(server.address(), b"content").unwrap();
    }
    server.line("cannot write the journal, transfers go on without: no space left on device");
    assert_eq!(server.count("cannot write the journal"), 1);
    server.stop(SOON);
    assert_eq!(place.read(5).unwrap(), b"content");
}

#[test]
fn one_that_nobody_reads_holds_nobody_up() {
    let place = Place::new();
    let mut command = program();
    command.stdout(Stdio::piped());
    let flags = ["--journal", "-", "--bind", "127.0.0.1"];
    let mut server = Server::start_as(command, &place, &flags);
    // More lines than a pipe has room for.
    for _ in 0..700 {
        upload(server.address(), b"content").unwrap();
    }
    server.line("cannot write the journal, transfers go on without: nobody reads it");
    let mut stdout = server.child().stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    super::harness::until("it is written again", || {
        upload(server.address(), b"content").unwrap();
        server.count("the journal is written again") == 1
    });
    server.stop(SOON);
    for line in reader.join().unwrap().unwrap().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn a_closed_stdout_is_refused() {
    let place = Place::new();
    let mut command = std::process::Command::new("sh");
    super::harness::clean(&mut command);
    command.args(["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_accio-server"), "5000"]);
    // An address of another machine: what gets as far as listening fails with another line.
    command.args([&place.dir(), "--journal", "-", "--bind", "203.0.113.7"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "ERROR: cannot use stdout: bad file descriptor\n");
    assert_eq!(output.status.code(), Some(1));
}
