//! `--on-commit`: one command for every complete file, without side effects on the server.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use super::harness::{Place, Server, command, connect, program, until, upload};
use super::usage::fails;

const SOON: Duration = Duration::from_secs(2);

fn lines(place: &Place, name: &str) -> Vec<String> {
    let text = fs::read_to_string(place.path(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn runs_only_for_complete_files() {
    let place = Place::new();
    let script = place.script(
        "hook",
        "echo \"$ACCIO_ID $ACCIO_BYTES $ACCIO_PEER $(cat \"$ACCIO_PATH\") $# $1\" >>\"$0.out\"",
    );
    // Where possible, the server is sandboxed; the command is not.
    let flags = ["--on-commit", &format!("{script} 'one  argument; $(touch x)'")];
    let server = Server::start(&place, &[&flags[..], &["--timeout", "1"]].concat());
    let aborted = connect(server.address()).unwrap();
    until("it is aborted", || place.read(1).is_some());
    let stream = connect(server.address()).unwrap();
    let peer = stream.local_addr().unwrap();
    std::io::Write::write_all(&mut &stream, b"content").unwrap();
    super::harness::finish(stream).unwrap();
    until("the command ran", || !lines(&place, "hook.out").is_empty());
    drop(aborted);
    server.stop(SOON);
    let expected = format!("2 7 {peer} content 1 one  argument; $(touch x)");
    assert_eq!(lines(&place, "hook.out"), [expected]);
}

#[test]
fn logs_a_failing_command_and_continues() {
    let place = Place::new();
    let script = place.script("hook", "echo from the hook; exit 3");
    let server = Server::start(&place, &["--on-commit", &script]);
    upload(server.address(), b"content").unwrap();
    server.line("from the hook");
    server.line("connection 1: --on-commit failed: exit status: 3");
    fs::remove_file(place.path("hook")).unwrap();
    upload(server.address(), b"content").unwrap();
    server.line("connection 2: --on-commit: no such file or directory");
    assert_eq!(place.read(2).unwrap(), b"content");
    server.stop(SOON);
}

#[test]
fn runs_every_command_with_limited_concurrency() {
    let place = Place::new();
    let script = place.script("hook", "echo + >>\"$0.out\"; sleep 0.3; echo - >>\"$0.out\"");
    let flags = ["--on-commit", &script, "--on-commit-jobs", "3", "--drain", "15"];
    let server = Server::start(&place, &flags);
    for _ in 0..20 {
        upload(server.address(), b"content").unwrap();
    }
    // The server waits for the commands.
    server.stop(Duration::from_secs(10));
    let (mut running, mut most) = (0_i32, 0);
    let lines = lines(&place, "hook.out");
    for line in &lines {
        running += if line == "+" { 1 } else { -1 };
        most = most.max(running);
    }
    assert_eq!((lines.len(), running, most), (40, 0, 3));
}

#[test]
fn ends_a_hanging_command_with_the_server() {
    for (drain, stubborn) in [("0", false), ("1", true)] {
        let place = Place::new();
        let trap = if stubborn { "trap '' TERM;" } else { "" };
        let script = place.script("hook", &format!("{trap} echo $$ >\"$0.pid\"; sleep 60 & wait"));
        let server = Server::start(&place, &["--on-commit", &script, "--drain", drain]);
        upload(server.address(), b"content").unwrap();
        until("it runs", || lines(&place, "hook.pid").len() == 1);
        let pid = lines(&place, "hook.pid")[0].clone();
        server.stop(Duration::from_millis(if drain == "0" { 1000 } else { 2100 }));
        // The process is gone, or a zombie until init notices.
        until("it is gone", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    }
}

#[test]
fn rejects_an_invalid_command() {
    let place = Place::new();
    for (command, why) in [
        ("", "no command"),
        ("/no/such/program", "no program \"/no/such/program\""),
        ("sh 'open", "missing closing quote"),
    ] {
        let line = fails(2, &["5000", &place.dir(), "--on-commit", command]);
        assert!(line.contains(why), "{line}");
    }
    assert!(!place.path("received").exists());
}

#[test]
fn counts_files_without_a_command_and_logs_once_a_second() {
    let place = Place::new();
    // The first command keeps the queue full until all files are complete.
    let wait = "until [ -e \"$0.go\" ]; do sleep 0.02; done; echo >>\"$0.out\"";
    let script = place.script("hook", wait);
    let flags = ["--on-commit", &script, "--on-commit-queue", "5", "--on-commit-jobs", "1"];
    let mut server = Server::start(&place, &[&flags[..], &["--drain", "20"]].concat());
    let start = Instant::now();
    for _ in 0..1000 {
        upload(server.address(), b"content").unwrap();
    }
    fs::write(place.path("hook.go"), "").unwrap();
    let seconds = start.elapsed().as_secs() as usize;
    // Waits for the rest of the queue, and for losses that are not logged yet.
    let (status, said) = server.end(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0));
    let run = lines(&place, "hook.out").len();
    let mut lost = 0;
    let logged: Vec<_> =
        said.iter().filter(|line| line.contains("no --on-commit command")).collect();
    for line in &logged {
        let text = line.split("] ").last().unwrap();
        lost += match text.split_once(" files up to ") {
            Some((count, _)) => count.parse().unwrap(),
            None => 1,
        };
    }
    assert!(run >= 5 && lost > 0, "{run} {lost}");
    assert_eq!(run + lost, 1000, "{logged:#?}");
    assert!(logged.len() <= seconds + 3, "{} lines in {seconds} s", logged.len());
}

#[test]
fn reaps_orphans_of_commands_when_the_server_is_process_1() {
    let place = Place::new();
    let words = match accio_harness::namespace::as_process_1() {
        Ok(words) => words,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "skipped: no process namespace: {why}");
            return;
        }
    };
    let mut namespace = command(words[0]);
    namespace.args(&words[1..]);
    // The orphan outlives the shell that started it and records its process ID.
    let script = place.script("hook", "(sleep 0.3; :) & echo $! >>\"$0.out\"");
    namespace.arg(program().get_program());
    let flags = ["--bind", "127.0.0.1", "--on-commit", &script, "--sandbox", "off"];
    let server = Server::start_as(namespace, &place, &flags);
    for _ in 0..5 {
        upload(server.address(), b"content").unwrap();
    }
    until("the commands ran", || lines(&place, "hook.out").len() == 5);
    // Longer than the orphans run.
    std::thread::sleep(Duration::from_millis(800));
    until("the orphans are reaped", || zombies_below(server.pid()).is_empty());
}

/// Returns the zombies among the descendants of a process.
fn zombies_below(root: i32) -> Vec<String> {
    let stats: Vec<(i32, i32, String)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter_map(|stat| {
            let pid = stat.split(' ').next()?.parse().ok()?;
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent, stat))
        })
        .collect();
    let mut below = vec![root];
    let mut index = 0;
    while let Some(&parent) = below.get(index) {
        below.extend(stats.iter().filter(|stat| stat.1 == parent).map(|stat| stat.0));
        index += 1;
    }
    let is_zombie = |stat: &&(i32, i32, String)| stat.2.contains(") Z ");
    stats
        .iter()
        .filter(|stat| below.contains(&stat.0))
        .filter(is_zombie)
        .map(|s| s.2.clone())
        .collect()
}
