//! `--journal`: a line of JSON for every connection.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::process::Signal;

use super::harness::{Place, Server, StopOnDrop, command, connect, json_lines, run, upload};
use super::usage::fails;

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_line_has_every_field_of_a_connection() {
    let place = Place::new();
    let journal = place.text("log/journal");
    let server = Server::start(&place, &["--journal", &journal, "--timeout", "1"]);
    upload(server.address(), b"content").unwrap();
    let mut confirming = connect(server.address()).unwrap();
    confirming.write_all(b"confirm-accio\r\nconfirm-accio-again\r\n\r\n").unwrap();
    // The client is silent from here on.
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
    assert_eq!(lines[1]["error"], "no data for 1 s");
    assert!((1.0..5.0).contains(&lines[1]["duration"].as_f64().unwrap()));
    assert_eq!((&lines[2]["outcome"], &lines[2]["reason"]), (&"error".into(), &"reset".into()));
    assert_eq!((&lines[2]["peer"], &lines[2]["dialect"]), (&peer.into(), &().into()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "it is not for everyone to read");
}

#[test]
fn creates_the_missing_directory_of_the_journal() {
    for flags in [&[][..], &["--durable"]] {
        let place = Place::new();
        let journal = place.text("new/deep/journal");
        let flags = [&["--journal", &journal], flags].concat();
        let server = Server::start(&place, &flags);
        upload(server.address(), b"content").unwrap();
        server.stop(SOON);
        assert_eq!(json_lines(&place.path("new/deep/journal")).len(), 1);
        let mode = |path| fs::metadata(place.path(path)).unwrap().permissions().mode();
        assert_eq!(mode("new"), mode("received"));
        assert_eq!(mode("new/deep"), mode("received"));
    }
}

#[test]
fn rotation_under_load_neither_loses_nor_splits_a_line() {
    let place = Place::new();
    let journal = place.text("log/journal");
    // Where possible, the server is sandboxed, which must not keep it from reopening the journal.
    let server = Server::start(&place, &["--journal", &journal, "-v"]);
    let over = AtomicBool::new(false);
    let sent: u64 = thread::scope(|scope| {
        let end = StopOnDrop(&over);
        let load = || {
            let mut sent = 0;
            while !over.load(Ordering::SeqCst) {
                upload(server.address(), b"content").unwrap();
                sent += 1;
            }
            sent
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        for round in 0..10_usize {
            thread::sleep(Duration::from_millis(20));
            fs::rename(&journal, place.path(&format!("log/journal.{round}"))).unwrap();
            server.signal(Signal::HUP);
            // The log says it when the server begins to write to the new file.
            let count = || server.count("reopened the journal");
            super::harness::until("it is reopened", || count() > round);
        }
        drop(end);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
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
fn rejects_a_journal_inside_the_directory_of_files() {
    let place = Place::new();
    fs::create_dir_all(place.path("received/below")).unwrap();
    symlink(place.path("received"), place.path("alias")).unwrap();
    symlink(place.path("received/linked"), place.path("log/link")).unwrap();
    fs::write(place.path("received/linked"), "").unwrap();
    // A server that does not start does not say either that it will be replaced.
    fs::write(place.path("received/1.file"), "").unwrap();
    for path in [
        "received/journal",
        "received/below/journal",
        "alias/journal",
        "log/link",
        "received/../received/journal",
        "received/new/journal",
    ] {
        let line = fails(2, &["5000", &place.dir(), "--journal", &place.text(path)]);
        assert!(line.contains("where the clients' files are"), "{line}");
    }
    assert!(!place.path("received/journal").exists());
    assert!(!place.path("received/new").exists());
    fs::write(place.path("plain"), "").unwrap();
    for (path, error) in [
        ("log", "cannot open the journal"),
        ("plain/journal", "cannot open the journal"),
        ("plain/new/journal", "cannot create directory"),
    ] {
        let line = fails(1, &["5000", &place.dir(), "--journal", &place.text(path)]);
        assert!(line.contains(error), "{line}");
    }
}

#[test]
fn writes_the_journal_to_stdout_on_request() {
    let place = Place::new();
    let mut server = Server::start(&place, &["--journal", "-"]);
    upload(server.address(), b"content").unwrap();
    assert_eq!(server.end(SOON).0.code(), Some(0));
    let text = server.stdout();
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((&line["bytes"], text.lines().count()), (&7.into(), 1));
}

#[test]
fn an_unwritable_journal_is_logged_once_and_delays_one_client() {
    let place = Place::new();
    let server = Server::start(&place, &["--journal", "/dev/full"]);
    let mut delayed = 0;
    for _ in 0..5 {
        let start = Instant::now();
        upload(server.address(), b"content").unwrap();
        delayed += usize::from(start.elapsed() > Duration::from_millis(900));
    }
    server.line("cannot write the journal: no space left on device: transfers continue without it");
    // Another process may cause a second delay.
    assert!((1..=2).contains(&delayed), "{delayed}");
    assert_eq!(server.count("cannot write the journal"), 1);
    server.stop(SOON);
    assert_eq!(place.read(5).unwrap(), b"content");
}

/// A full pipe as the journal, read by the test. It is filled with lines of `x`.
struct SlowReader {
    pipe: File,
}

impl SlowReader {
    fn new(place: &Place) -> Self {
        let path = place.path("log/journal");
        mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
        // Opened for reading and writing, so that the pipe always has both ends.
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        let mut options = File::options();
        let pipe = options.read(true).write(true).custom_flags(nonblocking).open(path).unwrap();
        SlowReader { pipe }
    }

    fn fill(&self) {
        while (&self.pipe).write(b"x\n").is_ok() {}
    }

    fn read(&self, count: usize) -> String {
        let mut text = vec![0; count];
        let count = (&self.pipe).read(&mut text).unwrap_or(0);
        String::from_utf8(text[..count].to_vec()).unwrap()
    }
}

/// A journal that is read at 2 kB/s delays clients once, for a second, and not again whenever it
/// accepts a few lines.
#[test]
fn a_slowly_read_journal_delays_clients_once() {
    let place = Place::new();
    let reader = SlowReader::new(&place);
    let server = Server::start(&place, &["--journal", &place.text("log/journal")]);
    reader.fill();
    let start = Instant::now();
    let over = AtomicBool::new(false);
    let (uploads, delays) = thread::scope(|scope| {
        let end = StopOnDrop(&over);
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                reader.read(400);
                thread::sleep(Duration::from_millis(200));
            }
        });
        let (mut uploads, mut delays) = (0, 0);
        while start.elapsed() < Duration::from_secs(8) {
            let before = Instant::now();
            upload(server.address(), b"content").unwrap();
            uploads += 1;
            delays += usize::from(before.elapsed() > Duration::from_millis(900));
            thread::sleep(Duration::from_millis(10));
        }
        drop(end);
        (uploads, delays)
    });
    assert!(uploads > 50, "{uploads}");
    // Another process may cause a second delay; a journal that delays clients again does so each
    // second.
    assert!((1..=2).contains(&delays), "{delays} of {uploads} uploads");
    let failed = "cannot write the journal: the pipe is full: transfers continue without it";
    server.line(failed);
    assert_eq!(server.count(failed), 1);
    server.stop(SOON);
}

#[test]
fn a_journal_that_recovers_gets_waiting_lines_and_the_count_of_lost_ones() {
    let place = Place::new();
    let reader = SlowReader::new(&place);
    let server = Server::start(&place, &["--journal", &place.text("log/journal")]);
    reader.fill();
    for _ in 0..20 {
        upload(server.address(), b"content").unwrap();
    }
    server.line("cannot write the journal");
    let mut text = String::new();
    super::harness::until("the journal works", || {
        text += &reader.read(1 << 20);
        server.count("the journal accepts lines again; 0 lines are missing") == 1
    });
    text += &reader.read(1 << 20);
    let lines: Vec<&str> = text.lines().filter(|line| *line != "x").collect();
    let ids = lines.iter().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["id"].as_u64().unwrap()
    });
    assert_eq!(ids.collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    server.stop(SOON);
}

/// An incomplete last line was left by a killed server or by another server with the same journal.
#[test]
fn starts_a_new_line_after_an_incomplete_one() {
    let place = Place::new();
    let journal = place.path("log/journal");
    fs::write(&journal, "{\"time\":\"2026-11-2").unwrap();
    let other_place = Place::new();
    let flags = ["--journal", &place.text("log/journal")];
    let servers = [Server::start(&place, &flags), Server::start(&other_place, &flags)];
    for server in &servers {
        upload(server.address(), b"content").unwrap();
    }
    let mut file = File::options().append(true).open(&journal).unwrap();
    file.write_all(b"{\"torn\":").unwrap();
    for server in servers {
        upload(server.address(), b"content").unwrap();
        server.stop(SOON);
    }
    let text = fs::read_to_string(&journal).unwrap();
    let whole = |line: &&str| serde_json::from_str::<serde_json::Value>(line).is_ok();
    assert_eq!(text.lines().filter(whole).count(), 4, "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
}

#[test]
fn accepts_an_unwanted_stdout() {
    // Python and Node.js open it like this for `DEVNULL` or `ignore`.
    for redirection in [">&-", "1<>/dev/null"] {
        let place = Place::new();
        let mut command = command("sh");
        let script = format!("exec \"$0\" \"$@\" {redirection}");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_accio-server"), "5000"]);
        // An address of another machine: the server gets as far as listening.
        command.args([&place.dir(), "--journal", "-", "--bind", "203.0.113.7"]);
        let output = run(command).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("ERROR: cannot listen on 203.0.113.7:5000"), "{stderr}");
    }
}
