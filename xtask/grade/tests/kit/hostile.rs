//! A class with submissions that crash, hang, flood, fork and ignore signals: none harms another,
//! and nothing of them stays behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{grade, kit, script, set, submit};

const ALL: [&str; 3] = ["client", "server", "server-s"];

/// Hostile scripts, by name.
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
fn a_class_with_hostile_submissions_is_graded_fairly_and_leaves_nothing() {
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
    for (name, lost) in &graded {
        match name.as_str() {
            "good-1" | "good-2" | "good-3" | "nothing-in-it" => {
                assert_eq!(*lost, BTreeSet::new(), "{name}");
            }
            "nearly" => assert_eq!(*lost, set("3")),
            // A transfer to or from them never comes about.
            _ => assert!(lost.is_superset(&set("4 14")), "{name} lost {lost:?} only"),
        }
    }
    assert_eq!(commands_with(class.path()), Vec::<String>::new(), "still there");
}

#[test]
fn exceeded_limits_are_reported() {
    // Where looking comes too late, memory ends at a limit of the system's, and `tail` says so.
    let told: [(&str, &[&str]); 2] = [
        ("floods", &["the kit ended it: more than 256 MiB of output"]),
        ("takes-memory", &["the kit ended it: more than 256 MiB of memory", "memory exhausted"]),
    ];
    let class = tempfile::tempdir().unwrap();
    for (name, any) in told {
        let text = HOSTILE.iter().find(|(hostile, _)| *hostile == name).unwrap().1;
        let own = class.path().join(name);
        script(&own.join("server"), text);
        let output = kit()
            .args(["--handshake", "confirm", "--network", "proxy", "--memory", "256"])
            .args(["--no-retry", "--filter", "server/14", "--subject"])
            .arg(own)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(any.iter().any(|what| said.contains(what)), "{said}");
    }
}

/// The command lines of processes that name something in `dir`.
fn commands_with(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&dir) && !line.contains("--submissions"))
        .collect()
}
