//! Verdicts that must say neither more nor less than was observed, and messages that must name the
//! cause. Each case is a program for which an earlier version of the kit was wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{kit, run, set, skips, submit};

/// A program, the checks to run and the expected failures.
struct Case {
    program: &'static str,
    dialect: &'static str,
    fault: &'static str,
    /// The checks to run, without the program's name.
    checks: &'static str,
    /// Those that must fail.
    failed: &'static str,
    /// A check and a part of its description of the actual behaviour.
    says: &'static [(&'static str, &'static str)],
    /// A text that no description may contain.
    never: &'static str,
    /// A check and a part of the output of its programs.
    prints: &'static [(&'static str, &'static str)],
    /// Further options.
    options: &'static [&'static str],
}

const fn case(program: &'static str, fault: &'static str, checks: &'static str) -> Case {
    Case {
        program,
        dialect: "confirm",
        fault,
        checks,
        failed: "",
        says: &[],
        never: "/tmp/",
        prints: &[],
        options: &[],
    }
}

#[rustfmt::skip]
static CASES: &[Case] = &[
    // A connection that is gone is not read.
    Case { failed: "6", says: &[("6", "closed the connection")], ..case("server", "closes-early", "4 6") },
    Case { failed: "6", ..case("server-s", "closes-early", "4 6") },
    // A connection that was greeted and closed at once was accepted.
    Case { dialect: "accio", failed: "6", ..case("server-s", "closes-early", "4 5 6") },
    Case { dialect: "accio", failed: "6", ..case("server", "closes-early", "4 5 6") },
    // Whether a transfer arrived does not depend on stdout.
    Case {
        failed: "11 12 13",
        says: &[("11", "the server-s had ended: exit code 1")],
        ..case("server-s", "dies", "11 12 13")
    },
    Case {
        failed: "12 14 16",
        says: &[("12", r#"nothing on stdout, but on stderr "500""#)],
        ..case("server-s", "to-stderr", "11 12 13 14 15 16")
    },
    // A start-up line is named, costs only the checks of what is printed, and may be allowed.
    Case {
        failed: "9 12 14",
        says: &[("12", r#"the line 500, but before it "listening on port"#)],
        ..case("server-s", "announces", "8 9 12 14 empty patient")
    },
    Case {
        failed: "9",
        says: &[("9", r#"nothing on stdout, but on stderr "ERROR""#)],
        ..case("server-s", "to-stderr", "9")
    },
    Case { options: &["--allow-start-up-lines"], ..case("server-s", "announces", "9 12 14") },
    // The time limit begins when bytes stop moving.
    case("client", "small-buffer", "9"),
    // The rules of a dialect are those of its own documents.
    Case { dialect: "direct", ..case("server", "sigint-nonzero", "3") },
    Case { dialect: "direct", failed: "3", ..case("server", "only-sigint", "3") },
    // The arguments are counted while a server is running, and a crash is no error message.
    Case { failed: "2", says: &[("2", "exit code 0")], ..case("client", "ignores-arguments", "2") },
    Case { failed: "2", says: &[("2", "a crash: ")], ..case("client", "crashes", "2") },
    // A server that has ended keeps no client waiting.
    Case {
        failed: "4",
        says: &[("4", "the server had ended: exit code 1")],
        never: "backlog",
        ..case("server", "ends-early", "4")
    },
    Case {
        failed: "patient",
        says: &[("patient", "connection refused; the server had ended: exit code 1")],
        ..case("server", "ends-early", "patient")
    },
    // The emulated network cuts no segment of a confirmation.
    case("server-s", "one-recv", "15 16"),
    // What the client printed tells why it closed the connection.
    Case {
        failed: "7",
        prints: &[("7", "ERROR: a wrong greeting")],
        ..case("client", "one-recv", "7 10")
    },
    // The content is the business of other checks.
    Case {
        failed: "14",
        says: &[("14", r#"38 bytes, "confirm-accio\r\nconfirm-a…", before the content"#)],
        ..case("server", "header-counted", "10 14")
    },
    case("client", "slow-start", "8 9"),
    // The single word.
    Case { failed: "9", says: &[("9", "ERROR: the client was silent")], ..case("server-s", "error-words", "9") },
    // A file that does not come, and what there is instead.
    Case {
        failed: "14",
        says: &[("14", "1.file does not exist 8 s after the transfer; FILE-DIR contains .part-1")],
        ..case("server", "late", "14")
    },
    // A part of a content is not another one.
    Case {
        failed: "18",
        says: &[("18", "the first 1000 are missing (compared with the 1048576")],
        ..case("server", "loses-start", "6 18")
    },
    // Contents are random, so no expectation contains their bytes.
    Case { failed: "100mib", ..case("server", "closes-early", "100mib") },
    Case { failed: "slow-reader", ..case("client", "send-ignored", "slow-reader") },
    // Content in the same segment as the last confirmation is a check of its own.
    Case { failed: "same-segment", ..case("server", "drops-first", "8 11 13 14 same-segment") },
    Case { failed: "same-segment", ..case("server-s", "drops-first", "12 14 16 same-segment") },
];

#[test]
fn verdicts_say_what_was_observed() {
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = CASES.iter().map(|case| scope.spawn(|| try_case(case))).collect();
        all.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_program_of_another_dialect_gets_a_hint() {
    for (program, speaks, check, hint) in [
        ("server", "direct", "server/6", "(--handshake direct)"),
        ("server-s", "accio", "server-s/6", "(--handshake accio)"),
        ("client", "accio", "client/8", "(--handshake accio)"),
    ] {
        let class = tempfile::tempdir().unwrap();
        submit(class.path(), "it", &[program], speaks, "none");
        let output = run(kit()
            .args(["--json", "--handshake", "confirm", "--filter", check, "--subject"])
            .arg(class.path().join("it")));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let actual = json["submissions"][0]["checks"][0]["actual"].to_string();
        assert!(actual.contains(hint), "{program} in {speaks}: {actual}");
    }
}

/// Grades the case; returns descriptions of unexpected results.
fn try_case(case: &Case) -> Vec<String> {
    let class = tempfile::tempdir().unwrap();
    submit(class.path(), "it", &[case.program], case.dialect, case.fault);
    if case.program == "server" {
        // Some of its checks need a client.
        submit(class.path(), "it", &["client"], case.dialect, "none");
    }
    let mut command = kit();
    command.args(["--json", "--handshake", case.dialect, "--subject"]);
    command.arg(class.path().join("it")).args(case.options);
    for check in case.checks.split(' ') {
        command.args(["--filter", &format!("{}/{check}", case.program)]);
    }
    let output = run(&mut command);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = format!("{}.{} in {}", case.program, case.fault, case.dialect);
    let skips = skips::of(&name, &json["submissions"][0], &[]);
    let mut wrong = skips.wrong;
    let of_the_system =
        |check: &str| skips.of_the_system.contains(&format!("{}/{check}", case.program));
    let mut failed = BTreeMap::new();
    let mut graded = BTreeSet::new();
    for check in json["submissions"][0]["checks"].as_array().unwrap() {
        let id = check["id"].as_str().unwrap().split('/').nth(1).unwrap().to_owned();
        graded.insert(id.clone());
        match check["outcome"].as_str().unwrap() {
            "failed" => {
                failed.insert(id, check.clone());
            }
            "passed" | "skipped" => {}
            other => panic!("{name}: {other}: {check:#}"),
        }
    }
    if graded != set(case.checks) {
        wrong.push(format!("{name}: the kit graded {graded:?}, not {}", case.checks));
    }
    let ids: BTreeSet<String> = failed.keys().cloned().collect();
    let mut expected = set(case.failed);
    expected.retain(|check| !of_the_system(check));
    if ids != expected {
        let actual = |(id, check): (&String, &Value)| format!("{id}: {}", check["actual"]);
        let failed: Vec<String> = failed.iter().map(actual).collect();
        wrong.push(format!("{name}: {failed:?}"));
    }
    for (field, expected) in [("actual", case.says), ("output", case.prints)] {
        for (check, text) in expected.iter().filter(|(check, _)| !of_the_system(check)) {
            let found = failed.get(*check).map(|check| text_of(&check[field]));
            if !found.as_ref().is_some_and(|found| found.contains(text)) {
                wrong.push(format!("{name}, {check}: no {text:?} in {found:?}"));
            }
        }
    }
    for (id, check) in failed {
        let check_expected = text_of(&check["expected"]);
        let mut shown = check;
        // The student repeats it with the path of the own directory.
        shown["command"].take();
        let shown = shown.to_string();
        let never = [case.never, "/tmp/", "(os error "];
        if let Some(text) = never.iter().find(|text| shown.contains(**text)) {
            wrong.push(format!("{name}, {id}: {text:?} in {shown}"));
        }
        if check_expected.contains("\\x") {
            wrong.push(format!("{name}, {id}: random bytes in {check_expected}"));
        }
    }
    wrong
}

/// Returns a text, or the lines of a list.
fn text_of(value: &Value) -> String {
    match value {
        Value::Array(lines) => lines.iter().map(text_of).collect::<Vec<_>>().join("\n"),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}
