//! `--sandbox`: what a sandboxed server can still do, and what happens where a sandbox is
//! impossible.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use accio_harness::{process, usage};
use landlock::{AccessFs, Ruleset, RulesetAttr};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

#[cfg(feature = "tls")]
use super::harness::program;
use super::harness::{Place, Server, Stopped, json_lines, until, upload};
use super::usage::fails;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_sandboxed_server_receives_reopens_its_journal_and_signals_its_helper() {
    let place = Place::new();
    let journal = place.text("log/journal");
    let command = place.script("command.sh", "sleep 60");
    let flags = ["--sandbox", "require", "--durable", "--journal", &journal, "--on-commit"];
    let server = Server::start(&place, &[&flags[..], &[&command, "-v"]].concat());
    server.line("Landlock confines the server");
    server.line("seccomp confines the server");
    upload(server.address(), &[7; 3 << 20]).unwrap();
    // The process that opens the journal outlives a signal to all processes of the server.
    let is_opener = |process: &&Pid| {
        let path = format!("/proc/{}/cmdline", process.as_raw_nonzero());
        fs::read_to_string(path).is_ok_and(|line| line.contains("__journal"))
    };
    let processes = usage::tree(Pid::from_raw(server.pid()).unwrap());
    kill_process(*processes.iter().find(is_opener).unwrap(), Signal::TERM).unwrap();
    fs::rename(&journal, place.path("log/journal.1")).unwrap();
    server.signal(Signal::HUP);
    server.line("reopened the journal");
    upload(server.address(), b"content").unwrap();
    assert_eq!(json_lines(&place.path("log/journal.1")).len(), 1);
    assert_eq!(json_lines(&place.path("log/journal")).len(), 1);
    assert_eq!(place.read(1).unwrap().len(), 3 << 20);
    // Ending the server sends a signal to the command.
    server.stop(SECOND);
}

/// As on a disk that takes long to create the new file. With `--durable`, clients wait for the journal as
/// long as it takes.
#[test]
fn clients_do_not_wait_for_the_process_that_opens_the_journal() {
    let place = Place::new();
    let journal = place.text("log/journal");
    let flags = ["--sandbox", "try", "--durable", "--journal", &journal, "-v"];
    let server = Server::start(&place, &flags);
    let descendants = usage::tree(Pid::from_raw(server.pid()).unwrap());
    let [_, helper] = descendants[..] else { panic!("{descendants:?}") };
    let stopped = Stopped::new(helper);
    fs::rename(&journal, place.path("log/journal.1")).unwrap();
    server.signal(Signal::HUP);
    // The server may not have received the signal before the first ones.
    for _ in 0..10 {
        upload(server.address(), b"content").unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.count("reopened the journal"), 0);
    assert_eq!(json_lines(&place.path("log/journal.1")).len(), 10);
    drop(stopped);
    // On a busy machine, the server may have given up.
    until("it is reopened", || {
        if server.count("the process that opens it does not answer: keeping the old file open") > 0
        {
            server.signal(Signal::HUP);
        }
        server.count("reopened the journal") > 0
    });
    upload(server.address(), b"content").unwrap();
    assert_eq!(json_lines(&place.path("log/journal")).len(), 1);
    server.stop(SECOND);
}

#[test]
fn the_arguments_of_helper_processes_are_errors_for_users() {
    for (first, rest) in [("__journal", &["/tmp/journal", "plain"][..]), ("__reopen", &[])] {
        let line = fails(2, &[&[first], rest].concat());
        assert!(line.contains(first), "{line}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn a_sandboxed_server_prints_its_host_name() {
    let place = Place::new();
    let mut command = program();
    command.env("STATE_DIRECTORY", place.text("state"));
    fs::create_dir(place.path("state")).unwrap();
    let server = Server::start_as(command, &place, &["--sandbox", "require", "--tls"]);
    let line = server.line("send files with ");
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let name = name.trim();
    assert!(line.contains(&format!("({name:?} or this machine's address)")), "{line}");
    assert!(line.contains(&format!("accio-client {name} ")), "{line}");
    server.stop(SECOND);
}

/// Otherwise systemd would find a process after the server has ended, and kill it.
#[test]
fn the_process_that_opens_the_journal_ends_before_the_server() {
    const INSIDE: &str = "ADOPTS_ORPHANS";
    if std::env::var_os(INSIDE).is_none() {
        // Orphans become children of this process; no other test may run in it then.
        let mut again = Command::new(std::env::current_exe().unwrap());
        let own = "sandbox::the_process_that_opens_the_journal_ends_before_the_server";
        again.args(["--exact", own, "--nocapture"]).env(INSIDE, "1");
        let output = process::output(again, b"", Duration::from_secs(120)).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let failure = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{failure}");
        return;
    }
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).unwrap();
    let place = Place::new();
    let journal = place.text("journal");
    let mut server = Server::start(&place, &["--sandbox", "require", "--journal", &journal]);
    let server_pid = Pid::from_raw(server.pid()).unwrap();
    let descendants = usage::tree(server_pid);
    let [_, helper] = descendants[..] else { panic!("{descendants:?}") };
    upload(server.address(), b"content").unwrap();
    assert_eq!(server.end(SECOND).0.code(), Some(0));
    let waited = rustix::process::waitpid(Some(helper), WaitOptions::NOHANG);
    assert_eq!(waited.err(), Some(Errno::CHILD), "the server left it behind");
}

/// Starts a server from a thread whose restrictions it inherits.
fn start_from(confine: impl FnOnce() + Send, place: &Place, flags: &[&str]) -> Server {
    thread::scope(|scope| {
        let start = || {
            confine();
            Server::start(place, flags)
        };
        scope.spawn(start).join().unwrap()
    })
}

/// Uses up the 16 layers of Landlock that the kernel allows.
fn nest_landlock() {
    for _ in 0..16 {
        let ruleset = Ruleset::default().handle_access(AccessFs::MakeBlock).unwrap();
        ruleset.create().unwrap().restrict_self().unwrap();
    }
}

/// Makes `no_new_privs` fail, as in some containers.
fn refuse_no_new_privs() {
    let no_new_privs = u64::from(libc::PR_SET_NO_NEW_PRIVS as u32);
    let length = SeccompCmpArgLen::Dword;
    let condition = SeccompCondition::new(0, length, SeccompCmpOp::Eq, no_new_privs).unwrap();
    let rules =
        BTreeMap::from([(libc::SYS_prctl, vec![SeccompRule::new(vec![condition]).unwrap()])]);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

#[test]
fn try_continues_with_a_warning_if_the_sandbox_fails() {
    type Case = (fn(), &'static [&'static str]);
    let cases: [Case; 2] = [
        (nest_landlock, &["cannot restrict the files of the server, continuing without"]),
        (
            refuse_no_new_privs,
            &[
                "cannot restrict the files of the server, continuing without",
                "cannot restrict the system calls of the server, continuing without",
            ],
        ),
    ];
    for (confine, warnings) in cases {
        let place = Place::new();
        let server = start_from(confine, &place, &["--sandbox", "try"]);
        for warning in warnings {
            server.line(warning);
        }
        upload(server.address(), b"content").unwrap();
        until("it is kept", || place.read(1).is_some());
        server.stop(SECOND);

        let place = Place::new();
        let line = thread::scope(|scope| {
            let start = || {
                confine();
                let port = super::harness::free_port().to_string();
                fails(1, &[&port, &place.dir(), "--sandbox", "require"])
            };
            scope.spawn(start).join().unwrap()
        });
        assert!(line.contains("cannot restrict the files of the server"), "{line}");
    }
}
