//! Grades a class with submissions that crash, hang, flood, fork and ignore signals. They must not
//! affect others, nor leave processes behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{grade, kit, run, script, set, submit};

const ALL: [&str; 3] = ["client", "server", "server-s"];

/// Names and contents of hostile scripts.
const HOSTILE: [(&str, &str); 7] = [
    ("crashes", "kill -SEGV $$"),
    ("ends-at-once", "exit 0"),
    ("floods", "exec yes 'unwanted output'"),
    ("forks", "for i in 1 2 3 4 5 6 7 8; do (setsid sleep 600 &) ; sleep 600 & done; sleep 600"),
    ("hangs", "exec sleep 600"),
    ("ignores-signals", "trap '' HUP INT QUIT TERM; while :; do sleep 1; done"),
    ("takes-memory", "exec tail /dev/zero"),
];

#[test]
fn hostile_submissions_affect_no_others_and_leave_no_processes() {
    let class = tempfile::tempdir().unwrap();
    for name in ["good-1", "good-2", "good-3"] {
        submit(class.path(), name, &ALL, "confirm", "none");
    }
    submit(class.path(), "nearly", &["client"], "confirm", "exit-zero");
    submit(class.path(), "nearly", &["server", "server-s"], "confirm", "none");
    for (name, text) in HOSTILE {
        for program in ALL {
            script(&class.path().join(name).join(program), text);
        }
    }
    fs::create_dir(class.path().join("nothing-in-it")).unwrap();

    let quick = ["client/3", "client/4", "server/14", "server-s/14"];
    let filters: Vec<&str> = quick.iter().flat_map(|check| ["--filter", check]).collect();
    let (graded, code) = grade(
        class.path(),
        "confirm",
        &[&filters[..], &["--at-once", "12", "--memory", "256"]].concat(),
    );
    assert_eq!(code, 1);
    assert_eq!(graded.len(), 12);
    for (name, failed) in &graded {
        match name.as_str() {
            "good-1" | "good-2" | "good-3" | "nothing-in-it" => {
                assert_eq!(*failed, BTreeSet::new(), "{name}");
            }
            "nearly" => assert_eq!(*failed, set("3")),
            // No transfer with them succeeds.
            _ => assert!(failed.is_superset(&set("4 14")), "{name} failed only {failed:?}"),
        }
    }
    assert_eq!(commands_with(class.path()), Vec::<String>::new(), "processes left behind");
}

#[test]
fn exceeded_limits_are_reported() {
    // If the watching thread is too late, `tail` reaches the system's limit and reports it.
    let expected: [(&str, &[&str]); 2] = [
        ("floods", &["the kit killed it: more than 256 MiB of output"]),
        ("takes-memory", &["the kit killed it: more than 256 MiB of memory", "memory exhausted"]),
    ];
    let class = tempfile::tempdir().unwrap();
    for (name, any) in expected {
        let text = HOSTILE.iter().find(|(hostile, _)| *hostile == name).unwrap().1;
        let own = class.path().join(name);
        script(&own.join("server"), text);
        let output = run(kit()
            .args(["--handshake", "confirm", "--network", "proxy", "--memory", "256"])
            .args(["--no-retry", "--filter", "server/14", "--subject"])
            .arg(own));
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(any.iter().any(|what| stdout.contains(what)), "{stdout}");
    }
}

/// Returns the command lines of running processes that contain the path `dir`.
fn commands_with(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&dir) && !line.contains("--submissions"))
        .collect()
}
