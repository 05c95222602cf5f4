//! `--durable`, checked by the system calls of a real server: when a client is notified, its bytes,
//! its name and its journal line are on the disk, and no name precedes its bytes.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::Duration;

use accio_harness::tools;

use super::harness::{Place, Server, command, free_port, program, until, upload};

const SOON: Duration = Duration::from_secs(5);
const CLIENTS: u64 = 16;
const UPLOADS: u64 = 6;

/// The system calls that matter here.
const CALLS: &str = "trace=accept4,openat,write,splice,close,mkdir,mkdirat,linkat,fdatasync,fsync";

/// A successful system call. `began` and `ended` order all calls of all threads.
#[derive(Debug)]
struct Call {
    name: String,
    /// The arguments; descriptors are followed by their path in angle brackets.
    arguments: String,
    /// The result, or the new descriptor.
    result: i64,
    began: usize,
    ended: usize,
}

impl Call {
    fn is(&self, name: &str, fd: i64) -> bool {
        self.name == name && number(&self.arguments) == Some(fd)
    }

    /// Returns whether the call is on a descriptor of this path.
    fn is_on(&self, name: &str, path: &str) -> bool {
        self.name == name && self.arguments.contains(&format!("<{path}>"))
    }

    fn moves_content_to(&self, fd: i64) -> bool {
        let output = || self.arguments.splitn(3, ", ").nth(2).and_then(number);
        self.is("write", fd) || (self.name == "splice" && output() == Some(fd))
    }
}

/// Returns the number at the beginning of a text.
fn number(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

/// Returns the calls of a trace, in the order in which they ended.
fn parse(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: Vec<(&str, String, usize)> = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (text, began) = if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.push((thread, begun.trim_end().to_owned(), at));
            continue;
        } else if rest.starts_with("<... ") {
            let mine = unfinished.iter().position(|(other, ..)| *other == thread).unwrap();
            let (_, begun, began) = unfinished.swap_remove(mine);
            (begun + rest.split_once(" resumed>").unwrap().1, began)
        } else {
            (rest.to_owned(), at)
        };
        let Some((call, result)) = text.rsplit_once(" = ") else { continue };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        let Some(result) = number(result.trim()) else { continue };
        let (name, arguments) = (name.to_owned(), arguments.to_owned());
        calls.push(Call { name, arguments, result, began, ended: at });
    }
    calls
}

/// Returns the server under strace, with FILE-DIR and journal in `place`; `None` where strace is
/// missing.
fn traced(place: &Place) -> Option<Command> {
    if let Err(why) = tools::require_tracing() {
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
        return None;
    }
    let mut command = command("strace");
    // With -DD, the server itself is the child, so that it can be ended, and strace is not in its
    // process group, so that it can still write the end of the trace.
    command.args(["-DD", "-f", "-y", "-s", "100000", "-e", CALLS, "-o", &place.text("log/trace")]);
    command.arg(program().get_program());
    command.arg(free_port().to_string()).arg(place.path("new/parents/received"));
    command.args(["--bind", "127.0.0.1", "--durable", "--journal", &place.text("log/journal")]);
    Some(command)
}

/// Between any two of the calls compared here the power could fail, so a power loss can depend on
/// nothing but their order.
#[test]
fn notifies_a_client_after_bytes_name_and_journal_are_synced() {
    let place = Place::new();
    let Some(command) = traced(&place) else { return };
    let server = Server::spawn(command);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let address = server.address();
            scope.spawn(move || {
                for round in 0..UPLOADS {
                    // Some files are copied, some spliced, and some preallocate.
                    let length = [100, 300_000, 3 << 20][(client + round) as usize % 3];
                    upload(address, &vec![client as u8; length]).unwrap();
                }
            });
        }
    });
    server.stop(SOON);
    let path = place.path("log/trace");
    until("strace has written", || fs::read_to_string(&path).unwrap().contains("+++ exited"));
    let calls = parse(&fs::read_to_string(&path).unwrap());
    let after = |at: usize| calls.iter().filter(move |call| call.began > at);
    let root = fs::canonicalize(place.path("")).unwrap();
    let root = root.to_str().unwrap();
    let (directory, journal) =
        (format!("{root}/new/parents/received"), format!("{root}/log/journal"));

    let accepted: Vec<&Call> = calls.iter().filter(|call| call.name == "accept4").collect();
    assert_eq!(accepted.len() as u64, CLIENTS * UPLOADS);
    let links: Vec<&Call> = calls.iter().filter(|call| call.name == "linkat").collect();
    let lines: Vec<&Call> = calls.iter().filter(|call| call.is_on("write", &journal)).collect();
    let mut first_told = usize::MAX;
    for (id, accepted) in (1..).zip(&accepted) {
        let context = format!("connection {id}");
        let notified = after(accepted.ended).find(|call| call.is("close", accepted.result));
        let notified = notified.expect(&context).began;
        first_told = first_told.min(notified);
        let name = format!("\"{id}.file\"");
        let link = links.iter().find(|call| call.arguments.contains(&name)).expect(&context);
        let file = number(&link.arguments).expect("an open file is linked");
        let before_link = || calls.iter().filter(|call| call.ended < link.began);
        let opened = before_link()
            .rfind(|call| call.name == "openat" && call.result == file)
            .expect(&context);
        let written = before_link().rfind(|call| call.moves_content_to(file)).expect(&context);
        assert!(written.began > opened.ended, "{context} has content");
        let synced =
            before_link().any(|call| call.is("fdatasync", file) && call.began > written.ended);
        assert!(synced, "{context} has a name before its bytes are on the disk");

        let named = after(link.ended).find(|call| call.is_on("fsync", &directory)).expect(&context);
        assert!(named.ended < notified, "{context} is notified before its name is on the disk");
        let line = format!("\\\"id\\\":{id},");
        let recorded = lines.iter().find(|call| call.arguments.contains(&line)).expect(&context);
        assert!(recorded.began > named.ended, "{context} is recorded before it is kept");
        let synced = after(recorded.ended).find(|call| call.is_on("fdatasync", &journal));
        let synced = synced.expect(&context);
        assert!(synced.ended < notified, "{context} is notified before its line is on the disk");
    }

    let synced = calls.iter().filter(|call| call.is_on("fsync", &directory)).count() as u64;
    assert!(synced < CLIENTS * UPLOADS, "no two commits shared a group");
    // The directory and its parent did not exist before.
    for parent in [root.to_owned(), format!("{root}/new"), format!("{root}/new/parents")] {
        let synced =
            calls.iter().any(|call| call.is_on("fsync", &parent) && call.ended < first_told);
        assert!(synced, "the name of the new directory in {parent:?} is not on the disk");
    }
}
