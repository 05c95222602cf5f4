//! Every fault must lose exactly the checks it should, and the correct programs none.
//!
//! `KIT_RUNS=20 cargo test -p accio-grade --test kit -- --ignored --nocapture` repeats the whole table and
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
    /// Whether it is tried each time, or only with the whole table: what takes long, or is much
    /// like another.
    quick: bool,
}

const fn faulty(program: &'static str, fault: &'static str, lost: &'static str) -> Faulty {
    Faulty { program, fault, lost, may: "", quick: false }
}

const fn may(one: Faulty, may: &'static str) -> Faulty {
    Faulty { may, ..one }
}

const fn quick(one: Faulty) -> Faulty {
    Faulty { quick: true, ..one }
}

/// The checks that a server loses if no client can talk to it.
const NO_SERVER: &str = "5 6 7 8 9 10 13 14 17 18 19 20 100mib closes empty idle only-files patient \
                         piecemeal reset second-greeting slow";
const NO_SERVER_S: &str = "5 6 7 8 9 10 11 12 13 14 15 16 100mib closes counts-anew empty idle \
                           patient piecemeal reset second-greeting slow";

#[rustfmt::skip]
static TABLE: &[Faulty] = &[
    quick(faulty("client", "none", "")),
    quick(faulty("client", "no-usage", "2")),
    quick(faulty("client", "no-error-line", "3 5 6 9 endless-greeting handshake-timeout wrong-greeting")),
    quick(faulty("client", "exit-zero", "2 3 5 6 9 endless-greeting handshake-timeout wrong-greeting")),
    quick(faulty("client", "no-connect-timeout", "6")),
    quick(may(faulty("client", "one-recv", "7 drip split"), "9 10 11 12 13")),
    quick(faulty("client", "any-greeting", "endless-greeting wrong-greeting")),
    quick(faulty("client", "early", "7 8")),
    may(faulty("client", "no-wait", "7 8 endless-greeting handshake-timeout wrong-greeting"), "drip split late-greeting"),
    may(faulty("client", "swapped", "7 8 9 10 11 12 13 100mib empty name slow-reader"), "late-greeting"),
    faulty("client", "no-blank-line", "8 9 10 11 12 13 100mib drip empty late-greeting name slow-reader split"),
    may(faulty("client", "whole-file", "100mib"), "9 12 13 slow-reader"),
    faulty("client", "send-ignored", "9 12 13 100mib slow-reader"),
    quick(faulty("client", "first-megabyte", "9 12 13 100mib slow-reader")),
    faulty("client", "extra-newline", "10 11 12 13 100mib drip empty late-greeting name slow-reader split"),
    faulty("client", "reset-at-the-end", "10 11 12 13 100mib drip empty late-greeting name never-closes slow-reader split"),
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
    faulty("server", "header-counted", "7 8 10 14 17 18 19 20 100mib empty only-files patient piecemeal slow"),
    quick(may(faulty("server", "one-recv", "piecemeal second-greeting"), "19 20")),
    quick(faulty("server", "dies-of-reset", "reset")),
    faulty("server", "spins", "idle"),
    quick(faulty("server", "never-closes", "9 closes silent-start")),
    quick(may(faulty("server", "other-order", "8"), "18 20")),
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
    quick(faulty("server-s", "header-counted", "12 14 16 100mib counts-anew empty patient piecemeal slow")),
    may(faulty("server-s", "one-recv", "piecemeal second-greeting"), "15 16"),
    faulty("server-s", "dies-of-reset", "reset"),
    faulty("server-s", "spins", "idle"),
    faulty("server-s", "never-closes", "9 closes silent-start"),
    quick(faulty("server-s", "other-order", "8")),
    quick(faulty("server-s", "backlog-1", "8")),
    quick(faulty("server-s", "words", "12 14 16")),
    quick(faulty("server-s", "one-counter", "counts-anew")),
    quick(faulty("server-s", "zero-for-error", "9 silent-start")),
];

/// Checks that move much or take long on a busy machine, left out of the quick share: texts that
/// mean them, and what they are then called here.
const HEAVY: &str = "MiB large 100mib server-s/14 server-s/16";
const LEFT_OUT: [(&str, &str); 3] = [
    ("client", "12 13 100mib"),
    ("server", "15 16 17 18 19 20 100mib"),
    ("server-s", "13 14 15 16 100mib"),
];

impl Faulty {
    fn name(&self) -> String {
        format!("{}.{}", self.program, self.fault)
    }
}

/// Grades these; those that did not lose what they should, with what was wrong.
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
    let lost_any = graded.iter().any(|(_, lost)| !lost.is_empty());
    assert_eq!(code, i32::from(lost_any));
    let mut wrong = Vec::new();
    for one in faults {
        let (name, lost) = graded.iter().find(|(graded, _)| *graded == one.name()).unwrap();
        println!("{name}: {}", lost.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
        let left_out = left_out.iter().find(|(program, _)| *program == one.program);
        let left_out = left_out.map_or_else(BTreeSet::new, |(_, checks)| set(checks));
        let must = &set(one.lost) - &left_out;
        let missed: BTreeSet<_> = &must - lost;
        let blamed: BTreeSet<_> = lost - &(&must | &set(one.may));
        if !missed.is_empty() || !blamed.is_empty() {
            wrong.push((*one, format!("{name}: not lost {missed:?}, lost too {blamed:?}")));
        }
    }
    wrong
}

/// The quick share of the faults and of the checks. What is not as it should be gets a second try
/// by itself, as a failed check does; the whole table, below, gets none.
#[test]
fn each_fault_loses_exactly_the_checks_it_should() {
    let quick: Vec<&Faulty> = TABLE.iter().filter(|one| one.quick).collect();
    assert!(quick.iter().filter(|one| one.fault != "none").count() >= 25);
    let mut without = vec!["--no-retry"];
    HEAVY.split_whitespace().for_each(|text| without.extend(["--without", text]));
    let wrong = run(&quick, &LEFT_OUT, &[&without[..], &["--at-once", "36"]].concat());
    if wrong.is_empty() {
        return;
    }
    wrong.iter().for_each(|(_, why)| eprintln!("once more: {why}"));
    let again: Vec<&Faulty> = wrong.iter().map(|(one, _)| *one).collect();
    let wrong = run(&again, &LEFT_OUT, &[&without[..], &["--at-once", "4"]].concat());
    assert_eq!(wrong.into_iter().map(|(_, why)| why).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn the_correct_ones_lose_nothing_in_any_dialect() {
    assert_eq!(lost_by_correct_ones(&[]), Vec::<String>::new());
}

/// Returns the checks that the correct programs lost, by dialect; should be empty.
fn lost_by_correct_ones(more: &[&str]) -> Vec<String> {
    let one = |dialect: &str| {
        let class = tempfile::tempdir().unwrap();
        submit(class.path(), "good", &["client", "server", "server-s"], dialect, "none");
        let (graded, code) = grade(class.path(), dialect, more);
        let (_, lost) = &graded[0];
        assert_eq!((graded.len(), code), (1, i32::from(!lost.is_empty())));
        (!lost.is_empty()).then(|| format!("the correct ones in {dialect}: lost {lost:?}"))
    };
    std::thread::scope(|scope| {
        let all = ["direct", "accio", "confirm"].map(|dialect| scope.spawn(move || one(dialect)));
        all.into_iter().filter_map(|one| one.join().unwrap()).collect()
    })
}

/// On a busy machine a late answer may be the machine's fault.
#[test]
fn a_server_that_works_is_waited_for_and_one_that_sleeps_is_not() {
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
    assert_eq!(*lost("server-s"), set("12 14 16 100mib counts-anew empty patient piecemeal slow"));
    assert_eq!(code, 1);
}

/// As often as KIT_RUNS says, the whole table and the correct ones in all dialects, with no failed
/// check run once more.
#[test]
#[ignore = "takes minutes for each run"]
fn no_run_of_many_differs() {
    let runs = std::env::var("KIT_RUNS").map_or(20, |runs| runs.parse().unwrap());
    let at_once = std::env::var("KIT_AT_ONCE").unwrap_or("24".into());
    let all: Vec<&Faulty> = TABLE.iter().collect();
    let mut wrong = Vec::new();
    for number in 1..=runs {
        let (began, seed) = (Instant::now(), number.to_string());
        let once = ["--no-retry", "--at-once", &at_once, "--seed", &seed];
        let found = run(&all, &[], &once).into_iter().map(|(_, why)| why);
        let found: Vec<String> = found.chain(lost_by_correct_ones(&once)).collect();
        println!("run {number}: {:.1} s, {found:?}", began.elapsed().as_secs_f64());
        wrong.extend(found);
    }
    assert_eq!(wrong, Vec::<String>::new());
}
