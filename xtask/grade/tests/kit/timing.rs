//! Programs whose faults depend on timing get the same marks alone, in a class and next to programs
//! that use all CPUs.
//!
//! `KIT_RUNS=20 cargo test -p accio-grade --test kit timing -- --ignored --nocapture` grades each
//! program that often in each situation and prints the marks that differ. `KIT_SITUATION` and
//! `KIT_ONLY` select situations and programs by a part of their names; with `KIT_AT_ONCE=4`, four
//! kits at once grade a program each, which still shares its kit with no other.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
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

/// Grades each program with a kit of its own.
fn each_alone(programs: &[(&str, &str)], at_once: usize) -> Marks {
    let left = Mutex::new(programs.iter());
    let grade_the_rest = || {
        let mut graded = Marks::new();
        loop {
            let next = left.lock().unwrap().next();
            let Some(program) = next else { return graded };
            graded.extend(marks(&[*program], &[]));
        }
    };
    thread::scope(|scope| {
        let kits: Vec<_> = (0..at_once.max(1)).map(|_| scope.spawn(grade_the_rest)).collect();
        kits.into_iter().flat_map(|kit| kit.join().unwrap()).collect()
    })
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
    let situation = std::env::var("KIT_SITUATION").unwrap_or_default();
    let at_once = std::env::var("KIT_AT_ONCE").map_or(1, |number| number.parse().unwrap());
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
        for place in ["alone", "in a class", "next to spinning programs"] {
            if !place.contains(&situation) {
                continue;
            }
            let began = Instant::now();
            let graded = match place {
                "alone" => each_alone(&programs, at_once),
                "in a class" => marks(&programs, &[]),
                _ => {
                    let _others = spinning();
                    marks(&programs, &[])
                }
            };
            compare(place, number, began, graded);
        }
    }
    for (name, failed) in &expected {
        println!("{name}: {failed}");
    }
    assert_eq!(differences, Vec::<String>::new());
}
