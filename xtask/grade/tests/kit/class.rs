//! Measures how long the kit takes for a class, a broken submission and a good one.
//!
//! `cargo test -p accio-grade --test kit class -- --ignored --nocapture` on a machine without other
//! load; `ACCIO_GRADE` is the path of another kit, such as a release build.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use accio_harness::{process, tools};

use crate::faults::names_of;
use crate::{kit, submit};

/// Number of submissions of the class; every tenth one is in Perl.
const CLASS: usize = 100;
/// Time limits on two cores, for the class, a broken submission and a good one.
const GOALS: [Duration; 3] =
    [Duration::from_secs(15 * 60), Duration::from_secs(90), Duration::from_secs(15)];

#[test]
#[ignore = "measures a class of 100 submissions, which takes many minutes"]
fn a_class_is_graded_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("class");
    for number in 0..CLASS {
        let name = format!("{number:02}");
        if number % 10 == 9 && tools::find("perl").is_some() {
            perl(&class.join(&name));
            continue;
        }
        // Different steps, so that the combinations differ.
        for (program, step) in [("client", 1), ("server", 5), ("server-s", 7)] {
            let faults = names_of(program);
            submit(&class, &name, &[program], "confirm", faults[number * step % faults.len()]);
        }
    }
    let alone = dir.path().join("alone");
    let all = ["client", "server", "server-s"];
    submit(&alone, "good", &all, "confirm", "none");
    for (program, fault) in all.into_iter().zip(["send-ignored", "late-greeting", "never-closes"]) {
        submit(&alone, "broken", &[program], "confirm", fault);
    }
    let mut late = Vec::new();
    let runs = [
        ("a good submission", vec![alone.join("good")], GOALS[2]),
        ("a broken submission", vec![alone.join("broken")], GOALS[1]),
        ("a class of 100", vec!["--submissions".into(), class], GOALS[0]),
    ];
    for (what, arguments, goal) in runs {
        let took = grade(dir.path(), &arguments);
        println!("{what}: {:.1} s, goal {} s", took.as_secs_f64(), goal.as_secs());
        if took > goal {
            late.push(what);
        }
    }
    assert_eq!(late, Vec::<&str>::new());
}

fn grade(dir: &Path, arguments: &[PathBuf]) -> Duration {
    let mut command = kit();
    command.args(["--handshake", "confirm"]).args(arguments).current_dir(dir);
    let began = Instant::now();
    let output = process::output(&mut command, b"", Duration::from_secs(7200)).unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    began.elapsed()
}

fn perl(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kit/perl");
    for script in ["client.pl", "server.pl", "server-s.pl"] {
        fs::copy(scripts.join(script), dir.join(script)).unwrap();
    }
}
