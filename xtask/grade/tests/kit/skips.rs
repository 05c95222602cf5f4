//! Skipped checks and tests. A skipped check has observed nothing, so no test may count it as passed.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, Write};

use serde_json::{Value, json};

/// Reasons for which a kit without the system calls of Linux skips checks. On Linux, all that these checks
/// need always exists.
const OF_THE_SYSTEM: [&str; 3] = [
    "this system does not show the sockets of other programs",
    "this system does not show the CPU time of other programs",
    "this machine has no second address",
];

/// Checks, separated by spaces, and the reason for which the kit skips them because of the options or the
/// submission of a test.
pub(crate) type Chosen = (&'static str, &'static str);

/// The checks that need namespaces. [`crate::grade`] runs the kit without them.
pub(crate) const LOSS: Chosen = ("client/loss server/loss server-s/loss", "--network proxy");
/// The checks of a server that need the submission's client.
pub(crate) const WITH_CLIENT: Chosen =
    ("server/11 server/12 server/15 server/16", "no client was given");

/// The skipped checks of a submission.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Skips {
    /// Descriptions of those that should have run.
    pub(crate) wrong: Vec<String>,
    /// Those that no test can run on this system, with the program's name.
    pub(crate) of_the_system: BTreeSet<String>,
}

/// Prints that a test, or a part of it, is skipped. The test runner would hide what `eprintln` prints.
pub(crate) fn tell(what: &str, why: impl Display) {
    let _ = writeln!(io::stderr(), "skipped: {what}: {why}");
}

/// Returns the skipped checks of a submission, except for those that the test has chosen, and prints
/// which are skipped because of the system.
pub(crate) fn of(name: &str, submission: &Value, chosen: &[Chosen]) -> Skips {
    let skips = sort(name, submission, chosen, cfg!(linux_sys));
    if !skips.of_the_system.is_empty() {
        let checks: Vec<&str> = skips.of_the_system.iter().map(String::as_str).collect();
        let what = format!("{} checks of {name}", checks.len());
        tell(&what, format!("{}: not on this system", checks.join(", ")));
    }
    skips
}

fn sort(name: &str, submission: &Value, chosen: &[Chosen], is_linux: bool) -> Skips {
    let mut skips = Skips::default();
    for check in submission["checks"].as_array().unwrap() {
        if check["outcome"] != "skipped" {
            continue;
        }
        let (id, why) = (check["id"].as_str().unwrap(), check["why"].as_str().unwrap());
        let is_chosen = |(checks, reason): &Chosen| {
            *reason == why && checks.split(' ').any(|check| check == id)
        };
        if chosen.iter().any(is_chosen) {
            println!("{name}, {id}: left out: {why}");
        } else if !is_linux && OF_THE_SYSTEM.contains(&why) {
            skips.of_the_system.insert(id.to_owned());
        } else {
            skips.wrong.push(format!("{name}: {id} was skipped: {why}"));
        }
    }
    skips
}

#[test]
fn only_chosen_checks_and_those_of_other_systems_may_be_skipped() {
    let check =
        |id: &str, outcome: &str, why: &str| json!({"id": id, "outcome": outcome, "why": why});
    let checks = json!({"checks": [
        check("server/4", "passed", ""),
        check("server/6", "skipped", OF_THE_SYSTEM[0]),
        check("server/11", "skipped", "no client was given"),
        check("server/14", "skipped", "no client was given"),
        check("server/loss", "skipped", "network namespaces need root"),
    ]});
    let system = format!("it: server/6 was skipped: {}", OF_THE_SYSTEM[0]);
    let client = |check: u32| format!("it: server/{check} was skipped: no client was given");
    let loss = "it: server/loss was skipped: network namespaces need root".to_owned();
    let wrong = |chosen: &[Chosen], is_linux| sort("it", &checks, chosen, is_linux).wrong;
    assert_eq!(wrong(&[], true), [system.clone(), client(11), client(14), loss.clone()]);
    assert_eq!(wrong(&[LOSS, WITH_CLIENT], true), [system, client(14), loss.clone()]);
    assert_eq!(wrong(&[WITH_CLIENT], false), [client(14), loss]);
    let of_the_system = sort("it", &checks, &[], false).of_the_system;
    assert_eq!(of_the_system, BTreeSet::from(["server/6".to_owned()]));
}
