//! Every fault must lose exactly the checks it should, and the correct programs none.
//!
//! `KIT_RUNS=20 cargo test -p xtask --test kit -- --ignored --nocapture` repeats the whole table and
//! prints what each fault lost; the seed of each run is its number.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::{grade, set, submit};

/// A program with a fault.
struct Faulty {
    program: &'static str,
    fault: &'static str,
    /// The checks it must lose, without the program's name.
    lost: &'static str,
    /// Those that depend on how bytes happen to be cut or connections to close.
    may: &'static str,
    /// Whether it is too slow to be tried each time.
    slow: bool,
}

const fn faulty(program: &'static str, fault: &'static str, lost: &'static str) -> Faulty {
    Faulty { program, fault, lost, may: "", slow: false }
}

const fn may(one: Faulty, may: &'static str) -> Faulty {
    Faulty { may, ..one }
}

const fn slow(one: Faulty) -> Faulty {
    Faulty { slow: true, ..one }
}

/// What a server loses to which no client can speak.
const NO_SERVER: &str = "5 6 7 8 9 10 13 14 17 18 19 20 100mib closes empty idle only-files patient \
                         piecemeal reset second-greeting slow";
const NO_SERVER_S: &str = "5 6 7 8 9 10 11 12 13 14 15 16 100mib closes counts-anew empty idle \
                           patient piecemeal reset second-greeting slow";

#[rustfmt::skip]
static TABLE: &[Faulty] = &[
    faulty("client", "none", ""),
    faulty("client", "no-usage", "2"),
    faulty("client", "no-error-line", "3 5 6 9 endless-greeting handshake-timeout wrong-greeting"),
    faulty("client", "exit-zero", "2 3 5 6 9 endless-greeting handshake-timeout wrong-greeting"),
    faulty("client", "no-connect-timeout", "6"),
    may(faulty("client", "one-recv", "7 drip split"), "10 11 12 13"),
    faulty("client", "any-greeting", "endless-greeting wrong-greeting"),
    faulty("client", "early", "7 8"),
    may(faulty("client", "no-wait", "7 8 endless-greeting handshake-timeout wrong-greeting"), "drip split late-greeting"),
    slow(faulty("client", "swapped", "7 8 9 10 11 12 13 100mib empty name slow-reader")),
    slow(faulty("client", "no-blank-line", "8 9 10 11 12 13 100mib drip empty late-greeting name slow-reader split")),
    may(faulty("client", "whole-file", "100mib"), "slow-reader"),
    faulty("client", "send-ignored", "9 12 13 100mib slow-reader"),
    faulty("client", "first-megabyte", "9 12 13 100mib slow-reader"),
    slow(faulty("client", "extra-newline", "10 11 12 13 100mib drip empty late-greeting name slow-reader split")),
    slow(faulty("client", "reset-at-the-end", "10 11 12 13 100mib drip empty late-greeting name never-closes slow-reader split")),
    faulty("client", "no-handshake-timeout", "handshake-timeout"),
    faulty("client", "no-send-timeout", "9"),
    faulty("client", "total-timeout", "slow-reader"),
    faulty("client", "spins", "idle"),
    faulty("client", "no-names", "name"),
    faulty("client", "waits-for-close", "never-closes"),
    faulty("server", "none", ""),
    faulty("server", "any-port", "2 port-zero"),
    faulty("server", "port-zero", "port-zero"),
    faulty("server", "sigint-nonzero", "3"),
    faulty("server", "deaf", "3 sigquit sigterm"),
    faulty("server", "only-sigint", "sigquit sigterm"),
    slow(faulty("server", "late-greeting", NO_SERVER)),
    slow(faulty("server", "chatty", NO_SERVER)),
    faulty("server", "greets-twice", "5 second-greeting"),
    faulty("server", "localhost", "interfaces"),
    faulty("server", "no-timeout", "9 silent-start"),
    faulty("server", "hasty", "9"),
    faulty("server", "total-timeout", "slow"),
    faulty("server", "accept-timeout", "patient"),
    slow(faulty("server", "header-counted", "7 8 10 14 17 18 19 20 100mib empty only-files patient piecemeal slow")),
    may(faulty("server", "one-recv", "piecemeal second-greeting"), "19 20"),
    faulty("server", "dies-of-reset", "reset"),
    faulty("server", "spins", "idle"),
    faulty("server", "never-closes", "9 closes silent-start"),
    may(faulty("server", "other-order", "8"), "20"),
    faulty("server", "error-line", "9 silent-start"),
    faulty("server", "error-appended", "9"),
    faulty("server", "finish-order", "8"),
    faulty("server", "left-behind", "only-files"),
    faulty("server", "whole-file", "100mib"),
    faulty("server-s", "none", ""),
    faulty("server-s", "any-port", "2 port-zero"),
    faulty("server-s", "sigint-nonzero", "3"),
    faulty("server-s", "deaf", "3 sigquit sigterm"),
    slow(faulty("server-s", "late-greeting", NO_SERVER_S)),
    slow(faulty("server-s", "chatty", NO_SERVER_S)),
    faulty("server-s", "greets-twice", "5 second-greeting"),
    faulty("server-s", "localhost", "interfaces"),
    faulty("server-s", "no-timeout", "9 10 silent-start"),
    faulty("server-s", "hasty", "9"),
    faulty("server-s", "total-timeout", "slow"),
    faulty("server-s", "accept-timeout", "patient"),
    faulty("server-s", "header-counted", "12 14 16 100mib counts-anew empty patient piecemeal slow"),
    may(faulty("server-s", "one-recv", "piecemeal second-greeting"), "15 16"),
    faulty("server-s", "dies-of-reset", "reset"),
    faulty("server-s", "spins", "idle"),
    faulty("server-s", "never-closes", "9 closes silent-start"),
    faulty("server-s", "other-order", "8"),
    faulty("server-s", "backlog-1", "8"),
    faulty("server-s", "words", "12 14 16"),
    faulty("server-s", "one-counter", "counts-anew"),
    faulty("server-s", "zero-for-error", "9 silent-start"),
];

/// Runs the table, or the share of it that does not take long; what was not as it should be.
fn run_table(all: bool, more: &[&str]) -> Vec<String> {
    let class = tempfile::tempdir().unwrap();
    let name = |one: &Faulty| format!("{}.{}", one.program, one.fault);
    let tried = || TABLE.iter().filter(|one| all || !one.slow);
    for one in tried() {
        submit(class.path(), &name(one), &[one.program], "confirm", one.fault);
    }
    let (graded, code) = grade(class.path(), "confirm", more);
    assert_eq!(code, 1);
    assert_eq!(graded.len(), tried().count());
    let mut wrong = Vec::new();
    for one in tried() {
        let (name, lost) = graded.iter().find(|(graded, _)| *graded == name(one)).unwrap();
        println!("{name}: {}", lost.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
        let missed: BTreeSet<_> = set(one.lost).difference(lost).cloned().collect();
        let may = &set(one.lost) | &set(one.may);
        let blamed: BTreeSet<_> = lost.difference(&may).cloned().collect();
        if !missed.is_empty() || !blamed.is_empty() {
            wrong.push(format!("{name}: not lost {missed:?}, lost too {blamed:?}"));
        }
    }
    wrong
}

#[test]
fn each_fault_loses_exactly_the_checks_it_should() {
    assert!(TABLE.iter().filter(|one| !one.slow && one.fault != "none").count() >= 25);
    assert_eq!(run_table(false, &["--at-once", "24"]), Vec::<String>::new());
}

#[test]
fn the_correct_ones_lose_nothing_in_any_dialect() {
    for dialect in ["direct", "accio", "confirm"] {
        let class = tempfile::tempdir().unwrap();
        submit(class.path(), "good", &["client", "server", "server-s"], dialect, "none");
        let (graded, code) = grade(class.path(), dialect, &[]);
        assert_eq!(graded, [("good".to_owned(), BTreeSet::new())], "{dialect}");
        assert_eq!(code, 0);
    }
}

/// Perl is neither ours nor the courses' language.
#[test]
fn programs_in_perl_pass_and_lose_what_a_changed_line_breaks() {
    if Command::new("perl").args(["-MIO::Socket::IP", "-e", "1"]).status().is_err() {
        eprintln!("skipped: programs_in_perl: there is no perl");
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
    let (graded, code) = grade(class.path(), "confirm", &["--at-once", "4"]);
    let lost = |name: &str| &graded.iter().find(|(graded, _)| graded == name).unwrap().1;
    assert_eq!(*lost("good"), BTreeSet::new());
    assert_eq!(*lost("client"), set("7 8"));
    assert_eq!(*lost("server"), set("9"));
    assert_eq!(*lost("server-s"), set("12 14 16 100mib counts-anew patient piecemeal slow"));
    assert_eq!(code, 1);
}

/// As often as KIT_RUNS says, the whole table, with no failed check run once more.
#[test]
#[ignore = "takes two minutes for each run"]
fn no_run_of_many_differs() {
    let runs = std::env::var("KIT_RUNS").map_or(20, |runs| runs.parse().unwrap());
    let mut wrong = Vec::new();
    for run in 1..=runs {
        let (began, seed) = (Instant::now(), run.to_string());
        let found = run_table(true, &["--no-retry", "--at-once", "36", "--seed", &seed]);
        println!("run {run}: {:.1} s, {found:?}", began.elapsed().as_secs_f64());
        wrong.extend(found);
    }
    assert_eq!(wrong, Vec::<String>::new());
}
