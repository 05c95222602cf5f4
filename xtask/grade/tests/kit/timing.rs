//! Programs whose faults depend on timing get the same marks alone, in a class and next to programs
//! that use all CPUs.
//!
//! `KIT_RUNS=20 cargo test -p accio-grade --test kit timing -- --ignored --nocapture` grades each
//! program that often in each situation and prints the marks that differ.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Instant;

use accio_harness::process::{Input, NO_OWNER, Process};

use crate::{Graded, grade, submit};

/// Programs that are slow, have small buffers, or rely on how bytes arrive.
#[rustfmt::skip]
static PROGRAMS: [(&str, &str); 31] = [
    ("client", "one-recv"), ("client", "send-ignored"), ("client", "small-buffer"),
    ("client", "small-writes"), ("client", "slow-writes"), ("client", "slow-start"),
    ("client", "late-connect"), ("client", "total-timeout"), ("client", "early"),
    ("client", "no-wait"), ("client", "swapped"), ("client", "whole-file"),
    ("server", "one-recv"), ("server", "drops-first"), ("server", "small-reads"),
    ("server", "slow-reads"), ("server", "busy-reads"), ("server", "thread-per-read"),
    ("server", "small-window"), ("server", "late-close"), ("server", "late-greeting-3"),
    ("server", "finish-order"), ("server", "total-timeout"), ("server", "other-order"),
    ("server-s", "one-recv"), ("server-s", "drops-first"), ("server-s", "small-reads"),
    ("server-s", "slow-reads"), ("server-s", "thread-per-read"), ("server-s", "small-window"),
    ("server-s", "late-greeting-3"),
];

/// The failed checks of each program.
type Marks = BTreeMap<String, String>;

fn marks(programs: &[(&str, &str)], more: &[&str]) -> Marks {
    let class = tempfile::tempdir().unwrap();
    for (program, fault) in programs {
        submit(class.path(), &format!("{program}.{fault}"), &[*program], "confirm", fault);
    }
    let (graded, _) = grade(class.path(), "confirm", more);
    let failed = |(name, failed): Graded| {
        (name, failed.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
    };
    graded.into_iter().map(failed).collect()
}

/// Starts as many programs that use a CPU all the time as there are CPUs.
fn spinning() -> Vec<Process> {
    let cores = std::thread::available_parallelism().unwrap().get();
    let start = |_| {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).stdout(Stdio::null());
        Process::spawn(command, NO_OWNER, Input::Null).unwrap()
    };
    (0..cores.max(2)).map(start).collect()
}

#[test]
#[ignore = "takes minutes for each run"]
fn timing_does_not_change_marks() {
    let runs = std::env::var("KIT_RUNS").map_or(1, |runs| runs.parse().unwrap());
    let only = std::env::var("KIT_ONLY").unwrap_or_default();
    let programs: Vec<(&str, &str)> = PROGRAMS
        .into_iter()
        .filter(|(program, fault)| format!("{program}.{fault}").contains(&only))
        .collect();
    let mut expected = Marks::new();
    let mut differences = Vec::new();
    let mut compare = |place: &str, run: usize, began: Instant, marks: Marks| {
        let seconds = began.elapsed().as_secs_f64();
        println!("run {run} {place}: {} programs in {seconds:.0} s", marks.len());
        for (name, failed) in marks {
            let first = expected.entry(name.clone()).or_insert_with(|| failed.clone());
            if *first != failed {
                differences.push(format!("{name}, run {run} {place}: {failed}, not {first}"));
                println!("{}", differences[differences.len() - 1]);
            }
        }
    };
    for number in 1..=runs {
        let began = Instant::now();
        let alone = programs.iter().flat_map(|one| marks(&[*one], &[])).collect();
        compare("alone", number, began, alone);
        let began = Instant::now();
        compare("in a class", number, began, marks(&programs, &[]));
        let (began, others) = (Instant::now(), spinning());
        compare("next to spinning programs", number, began, marks(&programs, &[]));
        drop(others);
    }
    for (name, failed) in &expected {
        println!("{name}: {failed}");
    }
    assert_eq!(differences, Vec::<String>::new());
}
