//! Some systems do not show the sockets of other programs. There the kit must skip what it cannot see.
//! `cargo xtask test-portable` runs this with a kit that sees no sockets.

use std::thread;

use serde_json::Value;

use crate::{kit, run, skips, submit};

/// Faulty servers, and the checks that they must not pass.
const CASES: [(&str, &str); 4] = [
    ("never-reads", "6 7 10 11 reset"),
    ("closes-late", "6 7 10 11 reset"),
    ("accepts-one", "7 10 reset"),
    ("accepts-none", "4 5 6 7 10 11 reset"),
];

#[test]
#[cfg_attr(linux_sys, ignore = "this kit sees the sockets, so the checks fail")]
fn content_that_a_server_does_not_read_gives_no_points() {
    let passed = thread::scope(|scope| {
        let all = ["direct", "accio", "confirm"].map(|dialect| scope.spawn(|| passed(dialect)));
        all.map(|one| one.join().unwrap())
    });
    for (name, check) in passed.into_iter().flatten() {
        let (_, fault) = name.split_once('.').unwrap();
        let (_, forbidden) = CASES.iter().find(|(other, _)| *other == fault).unwrap();
        let check = check.split('/').nth(1).unwrap();
        assert!(!forbidden.split(' ').any(|one| one == check), "{name} passed {check}");
    }
}

/// Grades the faulty servers; returns the submissions and the checks that each passed.
fn passed(dialect: &str) -> Vec<(String, String)> {
    let class = tempfile::tempdir().unwrap();
    let results = tempfile::tempdir().unwrap();
    let mut kit = kit();
    kit.args([
        "--json",
        "--no-retry",
        "--network",
        "proxy",
        "--handshake",
        dialect,
        "--submissions",
    ]);
    kit.arg(class.path()).arg("--results").arg(results.path());
    for program in ["server", "server-s"] {
        for (fault, _) in CASES {
            let name = format!("{program}.{fault}");
            submit(class.path(), &name, &[program], dialect, fault);
            // The check server/11 needs a client.
            submit(class.path(), &name, &["client"], dialect, "none");
        }
        for check in "2 4 5 6 7 10 11 reset".split(' ') {
            kit.args(["--filter", &format!("{program}/{check}")]);
        }
    }
    let report: Value = serde_json::from_slice(&run(&mut kit).stdout).unwrap();
    let mut passed = Vec::new();
    for submission in report["submissions"].as_array().unwrap() {
        let name = submission["name"].as_str().unwrap();
        assert_eq!(skips::of(name, submission, &[]).wrong, Vec::<String>::new());
        for check in submission["checks"].as_array().unwrap() {
            if check["outcome"] == "passed" {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                passed.push((text(&submission["name"]), text(&check["id"])));
            }
        }
    }
    // All servers reject invalid ports.
    let second = passed.iter().filter(|(_, check)| check.ends_with("/2")).count();
    assert_eq!(second, 2 * CASES.len(), "{report:#}");
    passed
}
