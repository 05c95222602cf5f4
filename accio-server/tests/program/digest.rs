//! `--digest`: the digest is in the journal and in the environment of commands, and nowhere else.

use std::time::Duration;

use accio_harness::payload;

#[cfg(linux_sys)]
use super::harness::Stopped;
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

/// Returns whether this kernel has Landlock; says so loudly if it has not.
#[cfg(linux_sys)]
#[expect(clippy::print_stderr, reason = "a test that checks nothing must say so")]
fn has_landlock() -> bool {
    use landlock::{AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr};
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::ReadFile);
    let has = ruleset.is_ok_and(|ruleset| ruleset.create().is_ok());
    if !has {
        eprintln!("SKIPPED: this kernel has no Landlock");
    }
    has
}

/// Part of the line that the server logs when it begins to read an upload back.
#[cfg(linux_sys)]
const READS_BACK: &str = "reading the content back for its digest";

#[cfg(linux_sys)]
#[test]
fn large_uploads_are_read_back_also_in_the_sandbox() {
    let big = payload::bytes(2, 9_000_000);
    for algorithm in ["sha256", "blake3"] {
        for sandbox in ["require", "off"] {
            if sandbox == "require" && !has_landlock() {
                continue;
            }
            let place = Place::new();
            let journal = place.text("log/journal");
            let flags = ["--digest", algorithm, "--sandbox", sandbox, "--journal", &journal, "-vv"];
            let server = Server::start(&place, &flags);
            upload(server.address(), &big).unwrap();
            upload(server.address(), b"small").unwrap();
            upload(server.address(), &big).unwrap();
            until("three lines", || json_lines(&place.path("log/journal")).len() == 3);
            let lines = json_lines(&place.path("log/journal"));
            for (id, line) in (1..).zip(&lines) {
                let content = place.read(id).unwrap();
                assert!(content == if id == 2 { b"small".to_vec() } else { big.clone() });
                let digest = line["digest"].as_str().unwrap();
                let mut hasher = accio_proto::Hasher::new(algorithm.parse().unwrap());
                hasher.update(&content);
                assert_eq!(digest, hasher.finish().to_string(), "{id}");
            }
            for id in [1, 3] {
                server.line(&format!("connection {id}: {READS_BACK}"));
            }
            assert_eq!(server.count(READS_BACK), 2);
            server.stop(SOON);
        }
    }
}

#[cfg(linux_sys)]
#[test]
fn without_its_helper_the_server_hashes_from_memory_and_warns_once() {
    use rustix::process::{Pid, Signal, kill_process};
    if !has_landlock() {
        return;
    }
    let big = payload::bytes(3, 5_000_000);
    // A helper that is killed, and one that does not answer.
    for signal in [Signal::KILL, Signal::STOP] {
        let place = Place::new();
        let journal = place.text("log/journal");
        let flags = ["--digest", "sha256", "--sandbox", "require", "--journal", &journal, "-vv"];
        let server = Server::start(&place, &flags);
        let helpers = accio_harness::usage::tree(Pid::from_raw(server.pid()).unwrap());
        let is_helper = |pid: &&Pid| {
            let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
            std::fs::read_to_string(path).is_ok_and(|line| line.contains("__reopen"))
        };
        let helper = *helpers.iter().find(is_helper).expect("the helper runs");
        upload(server.address(), &big).unwrap();
        // It outlives a signal to all processes of the server.
        kill_process(helper, Signal::TERM).unwrap();
        upload(server.address(), &big).unwrap();
        assert_eq!(server.count(READS_BACK), 2);
        let stopped = match signal {
            Signal::STOP => Some(Stopped::new(helper)),
            signal => kill_process(helper, signal).map(|()| None).unwrap(),
        };
        for _ in 0..3 {
            upload(server.address(), &big).unwrap();
        }
        server.line("the process that opens uploads for their digests has failed");
        until("five lines", || json_lines(&place.path("log/journal")).len() == 5);
        for (id, line) in (1..).zip(json_lines(&place.path("log/journal"))) {
            let expected = sha256sum(&place.text(&format!("received/{id}.file")));
            assert_eq!(line["digest"].as_str(), Some(&*expected), "{id}");
        }
        assert_eq!(server.count("opens uploads for their digests has failed"), 1);
        assert_eq!(server.count(READS_BACK), 2);
        drop(stopped);
        server.stop(SOON);
    }
}

#[cfg(linux_sys)]
#[test]
fn no_helper_starts_if_nothing_is_read_back() {
    let place = Place::new();
    let flags = ["--digest", "sha256", "--sandbox", "try", "--without", "read-back"];
    let server = Server::start(&place, &flags);
    let processes =
        accio_harness::usage::tree(rustix::process::Pid::from_raw(server.pid()).unwrap());
    assert_eq!(processes.len(), 1, "{processes:?}");
    upload(server.address(), &payload::bytes(4, 5_000_000)).unwrap();
    server.stop(SOON);
}

/// A new server must be able to use the directory at once.
#[cfg(linux_sys)]
#[test]
fn the_helper_ends_with_a_server_that_is_killed_and_holds_no_lock() {
    use rustix::process::{Pid, Signal};
    let place = Place::new();
    let mut server = Server::start(&place, &["--digest", "blake3", "--sandbox", "try"]);
    let processes = accio_harness::usage::tree(Pid::from_raw(server.pid()).unwrap());
    let [_, helper] = processes[..] else { panic!("{processes:?}") };
    let stopped = Stopped::new(helper);
    server.signal(Signal::KILL);
    let stat = format!("/proc/{}/stat", server.pid());
    until("the server has ended", || {
        std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    });
    let next = Server::start(&place, &["--sandbox", "off"]);
    drop(stopped);
    // Its stderr ends when the helper has.
    server.wait();
    next.stop(SOON);
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
