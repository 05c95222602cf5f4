//! Runs the tests of all crates. Most of them wait most of the time, so several test programs run
//! at once, while cargo would run one after another.

use std::fmt;
use std::io::{self, Write};
use std::ops::AddAssign;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use accio_harness::cargo::cargo;
use accio_harness::process;
use anyhow::Context;
use serde_json::Value;

use crate::steps::{self, FinishedStep, Step};

/// The number of test programs that run at once. Each but the longest runs as many tests at once as
/// there are cores.
const AT_ONCE: usize = 3;
/// The test programs that take the longest. They start first, so that none runs alone at the end.
const LONGEST: [&str; 8] = [
    "xtask/grade/tests/kit",
    "accio-server/tests/program",
    "accio-proto/src/lib.rs",
    "accio-proto/tests/server",
    "accio-proto/tests/tls",
    "accio-tokio/tests/cases",
    "accio-proto/tests/simulation",
    "accio-client/tests/program",
];
/// Minimum number of tests of the first program that run at once. They mostly wait. With four on two
/// cores, tests of time limits in other programs failed.
const OF_LONGEST_AT_ONCE: usize = 3;
/// Time limit for cargo to link all test programs.
const LIMIT: Duration = Duration::from_secs(1800);

/// Numbers of tests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    failed: usize,
    ignored: usize,
}

/// Builds the test programs of the workspace and returns a step for each, and one for the examples
/// in the documentation.
pub(crate) fn steps(features: &str) -> anyhow::Result<Vec<Step>> {
    let mut list = cargo();
    list.args(["test", "--workspace", "--features", features]);
    list.args(["--no-run", "--message-format=json-render-diagnostics"]);
    let messages = process::checked_output(list, b"", LIMIT)?;
    let mut steps = test_programs(&String::from_utf8_lossy(&messages))?;
    anyhow::ensure!(!steps.is_empty(), "cargo lists no test programs");
    let rank_of = |step: &Step| LONGEST.iter().position(|path| step.title.starts_with(path));
    steps.sort_by_key(|step| (rank_of(step).unwrap_or(LONGEST.len()), step.title.clone()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let of_longest = cores.max(OF_LONGEST_AT_ONCE);
    for step in steps.iter_mut().filter(|step| rank_of(step) == Some(0)) {
        step.command.env("RUST_TEST_THREADS", of_longest.to_string());
    }
    let mut examples = cargo();
    examples.args(["test", "--workspace", "--features", features, "--doc", "--no-fail-fast"]);
    steps.push(Step { title: "examples in the documentation".to_owned(), command: examples });
    Ok(steps)
}

/// Returns the test programs in cargo's messages, each titled with its source file.
fn test_programs(messages: &str) -> anyhow::Result<Vec<Step>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let mut steps = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line)?;
        let (true, Some(program)) =
            (message["profile"]["test"] == true, message["executable"].as_str())
        else {
            continue;
        };
        let source = message["target"]["src_path"].as_str().context("no source")?;
        let manifest = message["manifest_path"].as_str().context("no manifest")?;
        let package = Path::new(manifest).parent().context("no directory of the manifest")?;
        let mut command = Command::new(program);
        // Like cargo does.
        command.current_dir(package).env("CARGO_MANIFEST_DIR", package);
        let source = Path::new(source);
        let title = source.strip_prefix(root).unwrap_or(source).display().to_string();
        steps.push(Step { title, command });
    }
    Ok(steps)
}

/// Runs the tests. Prints one line for each program that passes and the whole output of the others.
pub(crate) fn run(steps: Vec<Step>) -> io::Result<(u8, Counts)> {
    let total = Mutex::new(Counts::default());
    let code = steps::run(steps, AT_ONCE, |finished| {
        let counts = Counts::of(finished);
        if finished.code != 0 {
            finished.print()?;
        }
        let (title, took) = (&finished.title, finished.took.as_secs_f32());
        writeln!(io::stdout().lock(), "{title}: {counts} in {took:.1} s")?;
        *total.lock().unwrap_or_else(PoisonError::into_inner) += counts;
        Ok(())
    })?;
    Ok((code, total.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

impl Counts {
    /// Adds up the results that a test program printed. A program that fails without any failed
    /// test counts as one.
    fn of(finished: &FinishedStep) -> Counts {
        let mut counts = Counts::default();
        let results = finished.output.lines().filter_map(|line| line.strip_prefix("test result: "));
        for part in results.flat_map(|result| result.split(['.', ';'])) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => counts.passed += number,
                Some("failed") => counts.failed += number,
                Some("ignored") => counts.ignored += number,
                _ => {}
            }
        }
        if finished.code != 0 {
            counts.failed = counts.failed.max(1);
        }
        counts
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(code: u8, output: &str) -> FinishedStep {
        let (title, took) = ("a".to_owned(), Duration::ZERO);
        FinishedStep { title, code, output: output.to_owned(), took }
    }

    #[test]
    fn adds_up_the_results_of_a_program() {
        let output = "running 3 tests\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.5s\n\
            test result: FAILED. 5 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s\n";
        let counts = Counts { passed: 7, failed: 3, ignored: 1 };
        assert_eq!(Counts::of(&finished(101, output)), counts);
        assert_eq!(counts.to_string(), "7 passed, 3 failed, 1 ignored");
    }

    #[test]
    fn a_program_that_crashes_counts_as_a_failed_test() {
        let counts = Counts { passed: 0, failed: 1, ignored: 0 };
        assert_eq!(Counts::of(&finished(134, "running 3 tests\n")), counts);
        assert_eq!(Counts::of(&finished(0, "")), Counts::default());
    }

    #[test]
    fn finds_test_programs_among_cargos_messages() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let artifact = |test: bool, executable: Option<&str>| {
            let package = root.join("accio-server");
            let message = serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": package.join("Cargo.toml"),
                "target": { "src_path": package.join("tests/program/main.rs") },
                "profile": { "test": test },
                "executable": executable,
            });
            message.to_string()
        };
        let lines = [
            artifact(true, Some("/t/program-1")),
            artifact(false, Some("/t/accio-server")),
            artifact(false, None),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let found = test_programs(&lines.join("\n")).unwrap();
        let [program] = &found[..] else { panic!("{found:?}") };
        assert_eq!(program.title, "accio-server/tests/program/main.rs");
        assert_eq!(program.command.get_program(), "/t/program-1");
        assert_eq!(program.command.get_current_dir(), Some(&*root.join("accio-server")));
    }
}
