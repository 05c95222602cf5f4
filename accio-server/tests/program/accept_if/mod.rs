//! `--accept-if`: a command decides on each complete file before it is named and confirmed.

mod examples;

use std::fs;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use accio_harness::payload;
use accio_harness::peer::read;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::harness::{BOUND, Place, Server, connect, json_lines, until, upload};
use super::usage::fails;

const SOON: Duration = Duration::from_secs(2);

/// Starts a server with a journal and this script as its command.
fn start(place: &Place, script: &str, flags: &[&str]) -> Server {
    let script = place.script("check", script);
    start_as(place, &script, flags)
}

fn start_as(place: &Place, command: &str, flags: &[&str]) -> Server {
    let journal = place.text("log/journal");
    Server::start(place, &[&["--accept-if", command, "--journal", &journal], flags].concat())
}

fn journal(place: &Place) -> Vec<Value> {
    json_lines(&place.path("log/journal"))
}

/// Sends a file, which must be rejected; returns its line in the journal.
fn rejected(place: &Place, server: &Server, content: &[u8]) -> Value {
    let before = journal(place).len();
    let error = upload(server.address(), content).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "the client is reset");
    let line = journal(place).swap_remove(before);
    let id = line["id"].as_u64().unwrap();
    assert_eq!(place.read(id).unwrap(), b"ERROR");
    assert_eq!((&line["outcome"], &line["reason"]), (&"error".into(), &"rejected".into()));
    assert_eq!(line.get("digest"), None);
    line
}

/// Sends a file and its end, and does not wait.
fn send(server: &Server, content: &[u8]) -> TcpStream {
    let mut stream = connect(server.address()).unwrap();
    stream.write_all(content).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
}

fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// Returns the process number that a script has written.
fn pid(path: &Path) -> String {
    until("the command runs", || fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n')));
    fs::read_to_string(path).unwrap()
}

#[test]
fn the_command_reads_the_file_and_its_environment_before_it_is_named() {
    let flags = [
        &["--digest", "sha256"][..],
        &["--durable", "--digest", "sha256"],
        &["--without", "tmpfile", "--digest", "sha256"],
        &["--sandbox", "off", "--digest", "sha256"],
    ];
    for flags in flags {
        let place = Place::new();
        let server = start(
            &place,
            "echo \"$ACCIO_ID $ACCIO_BYTES $ACCIO_PEER $ACCIO_FILE_DIGEST ${ACCIO_PATH-none}\" >>\"$0.env\"\n\
             sha256sum >>\"$0.sum\"\n\
             ls \"${0%/*}/received\" >>\"$0.ls\"",
            flags,
        );
        let big = payload::bytes(1, 3_000_000);
        for (id, content) in (1..).zip([&b""[..], b"content", &big]) {
            let mut stream = connect(server.address()).unwrap();
            let peer = stream.local_addr().unwrap();
            stream.write_all(content).unwrap();
            super::harness::finish(stream).unwrap();
            assert!(place.read(id).unwrap() == content);
            let digest = journal(&place).pop().unwrap()["digest"].as_str().unwrap().to_owned();
            let line = |name| {
                let text = fs::read_to_string(place.path(name)).unwrap();
                text.lines().last().unwrap_or_default().to_owned()
            };
            let size = content.len();
            assert_eq!(line("check.env"), format!("{id} {size} {peer} {digest} none"), "{flags:?}");
            assert_eq!(format!("sha256:{}", &line("check.sum")[..64]), digest, "{flags:?}");
        }
        // While the third was under review, the first two had their names.
        let listed = fs::read_to_string(place.path("check.ls")).unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), ["1.file", "1.file", "2.file"]);
        server.stop(SOON);
        assert_eq!(fs::read_dir(place.path("received")).unwrap().count(), 3);
    }
}

#[test]
fn a_rejected_file_becomes_the_marker_and_the_reason_is_in_the_journal() {
    let place = Place::new();
    let server = start(
        &place,
        "read line\ncase $line in\n\
         bad*) printf '\\n  found something bad \\nand more\\n' >&2; exit 3 ;;\n\
         dumb*) exit 4 ;;\n\
         kill*) kill -9 $$ ;;\nesac",
        &["-v"],
    );
    upload(server.address(), b"good\n").unwrap();
    let line = rejected(&place, &server, b"bad\n");
    assert_eq!(line["error"], "rejected: found something bad");
    assert_eq!(line["bytes"], 4);
    server.line("connection 2: ERROR: rejected: found something bad");
    let line = rejected(&place, &server, b"dumb\n");
    assert_eq!(line["error"], "rejected: exit status: 4");
    let line = rejected(&place, &server, b"kill\n");
    assert_eq!(line["error"], "rejected: signal: 9 (SIGKILL)");
    assert_eq!(place.read(1).unwrap(), b"good\n");
    server.stop(SOON);
}

#[test]
fn control_characters_of_the_command_are_escaped() {
    let place = Place::new();
    let server = start(
        &place,
        "printf '\\033[31mred\\007\\000 \\377\\342\\200\\256\\n' >&2; exit 1",
        &["-v"],
    );
    let line = rejected(&place, &server, b"content");
    let text = line["error"].as_str().unwrap();
    assert!(text.starts_with("rejected: \\u{1b}[31mred\\u{7}"), "{text:?}");
    let raw = fs::read(place.path("log/journal")).unwrap();
    assert!(raw.iter().all(|byte| *byte == b'\n' || (*byte >= b' ' && *byte != 127)), "{raw:?}");
    let log = server.line("connection 1: ERROR");
    assert!(!log.contains('\u{1b}') && !log.contains('\u{202e}'), "{log:?}");
    server.stop(SOON);
}

#[test]
fn hostile_commands_delay_nothing_and_leave_nothing() {
    let place = Place::new();
    let server = start(
        &place,
        "case $ACCIO_ID in\n\
         1) exit 0 ;; # It never reads its standard input.\n\
         2) sleep 60 & echo $! >\"$0.2\"; exit 0 ;; # Its child keeps stderr open.\n\
         3) yes noise | head -c 20000000 >&2; exit 1 ;;\n\
         4) yes noise | head -c 20000000 >&2; exit 0 ;;\n\
         5) exec 2>&-; sleep 0.1; exit 1 ;; # It closes stderr itself.\n\
         6) exec <&- >&-; exit 0 ;;\nesac",
        &[],
    );
    let big = vec![7; 5_000_000];
    let started = Instant::now();
    upload(server.address(), &big).unwrap();
    upload(server.address(), &big).unwrap();
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    let child = pid(&place.path("check.2"));
    until("what the command left behind is killed", || !is_alive(&child));
    let line = rejected(&place, &server, &big);
    assert_eq!(line["error"], "rejected: noise");
    server.line("connection 3: ERROR: rejected: noise");
    upload(server.address(), &big).unwrap();
    let line = rejected(&place, &server, &big);
    assert_eq!(line["error"], "rejected: exit status: 1");
    upload(server.address(), &big).unwrap();
    server.stop(SOON);
}

#[test]
fn a_file_that_the_command_changes_is_rejected() {
    for change in ["printf x", "printf CONTENT"] {
        let place = Place::new();
        // The clock of the file system may have a resolution of some milliseconds.
        let body = format!("sleep 0.1; {change} >/proc/self/fd/0; exit 0");
        let server = start(&place, &body, &[]);
        let line = rejected(&place, &server, b"content");
        assert_eq!(line["error"], "rejected: the command changed the file");
        server.stop(SOON);
    }
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_children() {
    let place = Place::new();
    let server = start(
        &place,
        "trap '' TERM\nsleep 60 & echo $! >\"$0.child\"\necho $$ >\"$0.pid\"\necho hanging >&2\n\
         while :; do wait; sleep 1; done",
        &["--accept-timeout", "0.4"],
    );
    let started = Instant::now();
    let line = rejected(&place, &server, b"content");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(400) && took < BOUND, "{took:?}");
    assert_eq!(line["error"], "rejected: no decision within 0.4 s");
    for name in ["check.pid", "check.child"] {
        let pid = pid(&place.path(name));
        until("it is gone", || !is_alive(&pid));
    }
    server.line("connection 1: --accept-if: no decision within 0.4 s");
    server.stop(SOON);
}

#[test]
fn waiting_files_keep_their_order_and_their_time() {
    let place = Place::new();
    let server = start(
        &place,
        "echo \"+ $ACCIO_ID\" >>\"$0.out\"; sleep 0.3; echo - >>\"$0.out\"",
        &["--accept-jobs=2", "--accept-timeout=2", "--timeout=1.5", "--workers=1"],
    );
    // The last one waits for two seconds and more: longer than both time limits.
    let mut streams = Vec::new();
    for id in 1..=16 {
        streams.push(send(&server, b"content"));
        if id <= 2 {
            let began = |text: &String| text.contains(&format!("+ {id}\n"));
            until("its command runs", || {
                fs::read_to_string(place.path("check.out")).as_ref().is_ok_and(began)
            });
        } else {
            // Long enough to be complete before the next one.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    for stream in &mut streams {
        assert_eq!(read(stream, &mut [0]).unwrap(), 0, "it is confirmed");
    }
    let text = fs::read_to_string(place.path("check.out")).unwrap();
    let (mut running, mut most, mut order) = (0_i32, 0, Vec::new());
    for line in text.lines() {
        running += if line == "-" { -1 } else { 1 };
        most = most.max(running);
        order.extend(line.strip_prefix("+ ").map(|id| id.parse::<u64>().unwrap()));
    }
    assert_eq!((running, most), (0, 2));
    // Two commands run at once, so neighbours may change places.
    assert_eq!(order.len(), 16);
    assert!((1..).zip(&order).all(|(place, id)| id.abs_diff(place) <= 1), "{order:?}");
    assert_eq!(journal(&place).len(), 16);
    server.stop(SOON);
}

#[test]
fn a_stop_ends_the_command_and_the_file_is_an_error() {
    let place = Place::new();
    let server = start(
        &place,
        "trap '' TERM; echo $$ >\"$0.pid\"; sleep 60 & sleep 60; sleep 60",
        &["--accept-jobs", "1"],
    );
    let mut streams: Vec<_> = (0..3).map(|_| send(&server, b"content")).collect();
    let pid = pid(&place.path("check.pid"));
    server.stop(Duration::from_secs(1));
    for stream in &mut streams {
        read(stream, &mut [0]).unwrap_err();
    }
    for (id, line) in (1..).zip(journal(&place)) {
        assert_eq!(line["reason"], "shutdown", "{line}");
        assert_eq!(place.read(id).unwrap(), b"ERROR");
    }
    assert_eq!(journal(&place).len(), 3);
    until("the command is gone", || !is_alive(&pid));
}

#[test]
fn a_server_killed_during_a_review_leaves_no_file_and_no_command() {
    for flags in [&[][..], &["--durable"], &["--without", "tmpfile"]] {
        let place = Place::new();
        let mut server = start(&place, "echo $$ >\"$0.pid\"; sleep 60; exit 0", flags);
        let stream = send(&server, b"content");
        let pid = pid(&place.path("check.pid"));
        server.signal(Signal::KILL);
        server.wait();
        read(stream, &mut [0]).unwrap_err();
        let names = |place: &Place| {
            let entries = fs::read_dir(place.path("received")).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
        };
        assert_eq!(names(&place), [""; 0], "{flags:?}");
        assert_eq!(journal(&place).len(), 0, "{flags:?}");
        until("the command is gone", || !is_alive(&pid));
        // The next server removes what is left under a hidden name.
        let server = start_as(&place, &place.script("next", "exit 0"), flags);
        upload(server.address(), b"another").unwrap();
        server.stop(SOON);
        assert_eq!(names(&place), ["1.file"], "{flags:?}");
        assert_eq!(place.read(1).unwrap(), b"another");
    }
}

#[test]
fn a_drained_server_waits_for_the_decision() {
    let place = Place::new();
    let server = start(&place, "echo $$ >\"$0.pid\"; sleep 0.5", &["--drain", "10"]);
    let stream = send(&server, b"content");
    pid(&place.path("check.pid"));
    server.stop(Duration::from_secs(5));
    assert_eq!(read(stream, &mut [0]).unwrap(), 0, "it is confirmed");
    assert_eq!(place.read(1).unwrap(), b"content");
}

#[test]
fn both_commands_run_in_their_order() {
    let place = Place::new();
    let after =
        place.script("after", "echo \"after $ACCIO_ID $(cat \"$ACCIO_PATH\")\" >>\"$0.out\"");
    let server =
        start(&place, "grep -q good", &["--on-commit", &after, "--drain", "5", "--digest=blake3"]);
    upload(server.address(), b"good").unwrap();
    upload(server.address(), b"bad").unwrap_err();
    upload(server.address(), b"good, too").unwrap();
    server.stop(Duration::from_secs(5));
    let text = fs::read_to_string(place.path("after.out")).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort();
    assert_eq!(lines, ["after 1 good", "after 3 good, too"]);
}

#[test]
fn a_command_that_does_not_exist_is_refused_at_the_start_or_keeps_no_file() {
    let place = Place::new();
    let line = fails(2, &["5000", &place.dir(), "--accept-if", "/no/such/program"]);
    assert!(line.contains("--accept-if \"/no/such/program\": no program"), "{line}");
    let line = fails(2, &["5000", &place.dir(), "--accept-if", "true", "--mode", "200"]);
    assert!(line.contains("--accept-if: the command could not read files of --mode 200"), "{line}");
    assert!(!place.path("received").exists());
    let server = start(&place, "exit 0", &[]);
    fs::remove_file(place.path("check")).unwrap();
    let line = rejected(&place, &server, b"content");
    assert_eq!(line["error"], "rejected: cannot run the command: no such file or directory");
    server.line("connection 1: --accept-if: cannot run the command: no such file or directory");
    server.stop(SOON);
}

#[test]
fn without_its_helper_the_server_keeps_no_file() {
    let place = Place::new();
    let server = start(&place, "echo $PPID >\"$0.helper\"; sleep 1", &[]);
    let stream = send(&server, b"content");
    let helper = pid(&place.path("check.helper"));
    let helper = Pid::from_raw(helper.trim().parse().unwrap()).unwrap();
    kill_process(helper, Signal::KILL).unwrap();
    read(stream, &mut [0]).unwrap_err();
    server.line("the helper of --accept-if has ended: every file is rejected");
    let line = rejected(&place, &server, b"content");
    assert_eq!(line["error"], "rejected: the helper of --accept-if has ended");
    assert_eq!(place.read(1).unwrap(), b"ERROR");
    server.stop(SOON);
}
