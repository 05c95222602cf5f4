//! Checks that every fault fails exactly the expected checks, and that correct programs fail none.
//!
//! `KIT_RUNS=20 cargo test -p accio-grade --test kit -- --ignored --nocapture` repeats the whole
//! table and prints the failed checks of each fault. The seed of each run is its number.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use accio_harness::tools;

use crate::{grade, set, skips, submit};

/// A faulty program and the checks that it must fail.
struct Faulty {
    program: &'static str,
    fault: &'static str,
    /// The checks that it must fail, without the program's name.
    failed: &'static str,
    /// Checks that it may fail, depending on how bytes are sliced or connections close.
    may: &'static str,
    /// Whether it is part of the quick run. Faults that take long, or are similar to another, run
    /// only with the whole table.
    quick: bool,
}

const fn faulty(program: &'static str, fault: &'static str, failed: &'static str) -> Faulty {
    Faulty { program, fault, failed, may: "", quick: false }
}

const fn may(one: Faulty, may: &'static str) -> Faulty {
    Faulty { may, ..one }
}

const fn quick(one: Faulty) -> Faulty {
    Faulty { quick: true, ..one }
}

/// The checks that a server fails if no client can complete the handshake.
const NO_SERVER: &str = "5 6 7 8 9 10 13 14 17 18 19 20 100mib closes empty idle only-files patient \
                         piecemeal reset same-segment second-greeting slow";
const NO_SERVER_S: &str = "5 6 7 8 9 10 11 12 13 14 15 16 100mib closes counts-anew empty idle \
                           patient piecemeal reset same-segment second-greeting slow";

#[rustfmt::skip]
static TABLE: &[Faulty] = &[
    quick(faulty("client", "none", "")),
    quick(faulty("client", "no-usage", "2")),
    quick(faulty("client", "no-error-line", "3 5 6 9 endless-greeting handshake-timeout wrong-greeting")),
    quick(faulty("client", "exit-zero", "2 3 5 6 9 endless-greeting handshake-timeout wrong-greeting")),
    quick(faulty("client", "no-connect-timeout", "6")),
    quick(faulty("client", "one-recv", "7 drip split")),
    quick(faulty("client", "any-greeting", "endless-greeting wrong-greeting")),
    quick(faulty("client", "early", "7 8")),
    may(faulty("client", "no-wait", "7 8 endless-greeting handshake-timeout wrong-greeting"), "drip split late-greeting"),
    may(faulty("client", "swapped", "7 8 9 10 11 12 13 100mib empty name slow-reader"), "late-greeting"),
    faulty("client", "no-blank-line", "8 9 10 11 12 13 100mib drip empty greetings-together late-greeting name slow-reader split"),
    may(faulty("client", "whole-file", "100mib"), "9 12 13 slow-reader"),
    faulty("client", "send-ignored", "9 12 13 100mib slow-reader"),
    quick(faulty("client", "first-megabyte", "9 12 13 100mib slow-reader")),
    faulty("client", "extra-newline", "10 11 12 13 100mib drip empty greetings-together late-greeting name slow-reader split"),
    faulty("client", "reset-at-the-end", "10 11 12 13 100mib drip empty greetings-together late-greeting name never-closes slow-reader split"),
    quick(faulty("client", "no-handshake-timeout", "handshake-timeout")),
    quick(faulty("client", "no-send-timeout", "9")),
    may(faulty("client", "total-timeout", "slow-reader"), "11 12 13 100mib"),
    faulty("client", "spins", "idle"),
    quick(faulty("client", "no-names", "name")),
    quick(faulty("client", "waits-for-close", "never-closes")),
    quick(faulty("server", "none", "")),
    quick(faulty("server", "any-port", "2 port-zero")),
    quick(faulty("server", "port-zero", "port-zero")),
    quick(faulty("server", "sigint-nonzero", "3")),
    faulty("server", "deaf", "3 sigquit sigterm"),
    quick(faulty("server", "only-sigint", "sigquit sigterm")),
    faulty("server", "late-greeting", NO_SERVER),
    faulty("server", "chatty", NO_SERVER),
    quick(faulty("server", "greets-twice", "5 second-greeting")),
    quick(faulty("server", "localhost", "interfaces")),
    quick(faulty("server", "no-timeout", "9 silent-start")),
    faulty("server", "hasty", "9"),
    may(faulty("server", "total-timeout", "slow"), "15 16 17 18 19 20 100mib"),
    faulty("server", "accept-timeout", "patient"),
    faulty("server", "header-counted", "7 8 14 17 18 19 20 100mib empty only-files patient piecemeal same-segment slow"),
    quick(faulty("server", "one-recv", "piecemeal second-greeting")),
    quick(faulty("server", "dies-of-reset", "reset")),
    faulty("server", "spins", "idle"),
    quick(faulty("server", "never-closes", "9 closes silent-start")),
    quick(faulty("server", "other-order", "8")),
    faulty("server", "error-line", "9 silent-start"),
    quick(faulty("server", "error-appended", "9")),
    quick(faulty("server", "finish-order", "8")),
    quick(faulty("server", "left-behind", "only-files")),
    faulty("server", "whole-file", "100mib"),
    quick(faulty("server-s", "none", "")),
    faulty("server-s", "any-port", "2 port-zero"),
    faulty("server-s", "sigint-nonzero", "3"),
    faulty("server-s", "deaf", "3 sigquit sigterm"),
    faulty("server-s", "late-greeting", NO_SERVER_S),
    faulty("server-s", "chatty", NO_SERVER_S),
    faulty("server-s", "greets-twice", "5 second-greeting"),
    faulty("server-s", "localhost", "interfaces"),
    faulty("server-s", "no-timeout", "9 10 silent-start"),
    quick(faulty("server-s", "hasty", "9")),
    may(faulty("server-s", "total-timeout", "slow"), "13 14 15 16 100mib"),
    faulty("server-s", "accept-timeout", "patient"),
    quick(faulty("server-s", "header-counted", "12 14 16 100mib counts-anew empty patient piecemeal same-segment slow")),
    faulty("server-s", "one-recv", "piecemeal second-greeting"),
    faulty("server-s", "dies-of-reset", "reset"),
    faulty("server-s", "spins", "idle"),
    faulty("server-s", "never-closes", "9 closes silent-start"),
    quick(faulty("server-s", "other-order", "8")),
    quick(faulty("server-s", "backlog-1", "8")),
    quick(faulty("server-s", "words", "12 14 16")),
    quick(faulty("server-s", "one-counter", "counts-anew")),
    quick(faulty("server-s", "zero-for-error", "9 silent-start")),
];

/// Returns the faults of a program, and `none`.
pub(crate) fn names_of(program: &str) -> Vec<&'static str> {
    TABLE.iter().filter(|one| one.program == program).map(|one| one.fault).collect()
}

/// Checks that transfer much data or take long on a busy machine, which the quick run omits: the
/// texts that select them, and their names in the table.
const HEAVY: &str = "MiB large 100mib server-s/14 server-s/16";
const LEFT_OUT: [(&str, &str); 3] = [
    ("client", "12 13 100mib"),
    ("server", "15 16 17 18 19 20 100mib"),
    ("server-s", "13 14 15 16 100mib"),
];

/// Returns the options that leave out the checks of [`HEAVY`].
fn without_heavy() -> Vec<&'static str> {
    HEAVY.split_whitespace().flat_map(|text| ["--without", text]).collect()
}

impl Faulty {
    fn name(&self) -> String {
        format!("{}.{}", self.program, self.fault)
    }
}

/// Grades the faulty programs; returns those with unexpected results, with a description.
fn run<'a>(
    faults: &[&'a Faulty],
    left_out: &[(&str, &str)],
    more: &[&str],
) -> Vec<(&'a Faulty, String)> {
    let class = tempfile::tempdir().unwrap();
    for one in faults {
        submit(class.path(), &one.name(), &[one.program], "confirm", one.fault);
    }
    let (graded, code) = grade(class.path(), "confirm", more);
    assert_eq!(graded.len(), faults.len());
    let failed_any = graded.iter().any(|(_, failed)| !failed.is_empty());
    assert_eq!(code, i32::from(failed_any));
    let mut wrong = Vec::new();
    for one in faults {
        let (name, failed) = graded.iter().find(|(graded, _)| *graded == one.name()).unwrap();
        println!("{name}: {}", failed.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
        let left_out = left_out.iter().find(|(program, _)| *program == one.program);
        let left_out = left_out.map_or_else(BTreeSet::new, |(_, checks)| set(checks));
        let must = &set(one.failed) - &left_out;
        let missed: BTreeSet<_> = &must - failed;
        let unexpected: BTreeSet<_> = failed - &(&must | &set(one.may));
        if !missed.is_empty() || !unexpected.is_empty() {
            wrong.push((
                *one,
                format!("{name}: passed {missed:?}, failed unexpectedly {unexpected:?}"),
            ));
        }
    }
    wrong
}

/// Runs a quick part of the faults and checks. Unexpected results are tried again separately, like
/// failed checks; the whole table, below, is not.
#[test]
fn each_fault_fails_exactly_the_expected_checks() {
    let quick: Vec<&Faulty> = TABLE.iter().filter(|one| one.quick).collect();
    assert!(quick.iter().filter(|one| one.fault != "none").count() >= 25);
    let without = [&["--no-retry"], &without_heavy()[..]].concat();
    let wrong = run(&quick, &LEFT_OUT, &[&without[..], &["--at-once", "36"]].concat());
    if wrong.is_empty() {
        return;
    }
    wrong.iter().for_each(|(_, why)| eprintln!("trying again: {why}"));
    let again: Vec<&Faulty> = wrong.iter().map(|(one, _)| *one).collect();
    let wrong = run(&again, &LEFT_OUT, &[&without[..], &["--at-once", "4"]].concat());
    assert_eq!(wrong.into_iter().map(|(_, why)| why).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn correct_programs_pass_in_every_dialect() {
    assert_eq!(failed_by_correct_programs(&without_heavy()), Vec::<String>::new());
}

/// Returns the checks that the correct programs failed, by dialect.
fn failed_by_correct_programs(more: &[&str]) -> Vec<String> {
    let one = |dialect: &str| {
        let class = tempfile::tempdir().unwrap();
        submit(class.path(), "good", &["client", "server", "server-s"], dialect, "none");
        let (graded, code) = grade(class.path(), dialect, more);
        let (_, failed) = &graded[0];
        assert_eq!((graded.len(), code), (1, i32::from(!failed.is_empty())));
        (!failed.is_empty()).then(|| format!("the correct programs in {dialect} failed {failed:?}"))
    };
    std::thread::scope(|scope| {
        let all = ["direct", "accio", "confirm"].map(|dialect| scope.spawn(move || one(dialect)));
        all.into_iter().filter_map(|one| one.join().unwrap()).collect()
    })
}

/// A late answer of a busy program may be due to a busy machine; that of a sleeping program is not.
#[test]
fn waits_for_a_busy_server_but_not_for_a_sleeping_one() {
    let one = |fault: &str, more: &[&str]| {
        let class = tempfile::tempdir().unwrap();
        submit(class.path(), fault, &["server"], "confirm", fault);
        let checks = ["--filter", "server/9", "--filter", "server/14"];
        grade(class.path(), "confirm", &[&checks[..], more].concat()).0.remove(0).1
    };
    std::thread::scope(|scope| {
        let held = scope.spawn(|| one("held", &[]));
        assert_eq!(one("late", &["--no-retry"]), set("9 14"));
        assert_eq!(held.join().unwrap(), BTreeSet::new());
    });
}

/// Perl is neither the language of this project nor of the courses.
#[test]
fn programs_in_perl_pass_and_fail_after_a_change() {
    if tools::find("perl").is_none() {
        skips::tell("programs_in_perl", "perl is not installed");
        return;
    }
    let class = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kit/perl");
    let take = |name: &str, script: &str, line: &str, instead: &str| {
        let dir = class.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        let text = fs::read_to_string(scripts.join(script)).unwrap();
        assert!(text.contains(line), "{script} has no {line:?}");
        fs::write(dir.join(script), text.replacen(line, instead, 1)).unwrap();
    };
    for script in ["client.pl", "server.pl", "server-s.pl"] {
        take("good", script, "", "");
    }
    take(
        "client",
        "client.pl",
        "greeted();\nput(\"confirm-accio-again",
        "put(\"confirm-accio-again",
    );
    take("server", "server.pl", "truncate($one->{file}, 0);", "");
    take("server-s", "server-s.pl", "$total += length $bytes", "$total += 1");
    let (graded, code) =
        grade(class.path(), "confirm", &[&["--at-once", "4"], &without_heavy()[..]].concat());
    let failed = |name: &str| &graded.iter().find(|(graded, _)| graded == name).unwrap().1;
    assert_eq!(*failed("good"), BTreeSet::new());
    assert_eq!(*failed("client"), set("7 8"));
    assert_eq!(*failed("server"), set("9"));
    assert_eq!(
        *failed("server-s"),
        set("12 counts-anew empty patient piecemeal same-segment slow")
    );
    assert_eq!(code, 1);
}

/// Runs the whole table and the correct programs in all dialects KIT_RUNS times, without repeating
/// failed checks.
#[test]
#[ignore = "takes minutes for each run"]
fn all_of_many_runs_give_the_expected_results() {
    let runs = std::env::var("KIT_RUNS").map_or(20, |runs| runs.parse().unwrap());
    let at_once = std::env::var("KIT_AT_ONCE").unwrap_or("24".into());
    let all: Vec<&Faulty> = TABLE.iter().collect();
    let mut wrong = Vec::new();
    for number in 1..=runs {
        let (began, seed) = (Instant::now(), number.to_string());
        let once = ["--no-retry", "--at-once", &at_once, "--seed", &seed];
        let found = run(&all, &[], &once).into_iter().map(|(_, why)| why);
        let found: Vec<String> = found.chain(failed_by_correct_programs(&once)).collect();
        println!("run {number}: {:.1} s, {found:?}", began.elapsed().as_secs_f64());
        wrong.extend(found);
    }
    assert_eq!(wrong, Vec::<String>::new());
}
