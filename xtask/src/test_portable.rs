//! `cargo xtask test-portable`: tests the library and the programs without the features and system
//! calls that only Linux has.

use std::env;
use std::process::{Command, ExitCode};

use accio_harness::cargo::cargo;
use accio_harness::process;

use crate::crate_tests;
use crate::steps::Step;
use crate::tools::Tool;

/// The tests of the library that cover the portable code.
const TESTS: [&str; 4] = ["--lib", "--test=api", "--test=server", "--test=simulation"];
/// The target directory of this build.
const TARGET: &str = "target/portable";

/// Builds the library, the programs and the kit as for a system without epoll, splice, Landlock,
/// namespaces and so on, in a separate target directory. Runs the library's tests and the end-to-end
/// scenarios, grades the programs with that kit, which sees no sockets of other programs, and tests that
/// it gives faulty servers no points for what it cannot see.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let given = env::var("RUSTFLAGS").unwrap_or_default();
    // Code that only Linux calls would be a warning on other systems.
    let flags = format!("{given} --cfg accio_portable --deny warnings");
    let portable = |verb: &str| {
        let mut command = cargo();
        command.args([verb, "--target-dir", TARGET]).env("RUSTFLAGS", &flags);
        command
    };
    let mut tests = portable("test");
    tests.args(["--no-fail-fast", "--package=accio-proto", "--features=client,server"]).args(TESTS);
    let mut kit_tests = portable("test");
    kit_tests.args(["--package=accio-grade", "--test=kit", "hidden_sockets::"]);
    let kit_tests = Step { title: "tests of the kit".to_owned(), command: kit_tests };
    let mut build = portable("build");
    build.args(["--package=accio-server", "--package=accio-client", "--package=accio-simplified"]);
    build.arg("--package=accio-grade");
    // The scenarios also run server-s without fast paths.
    build.args(["--bins", "--features=accio-simplified/diagnostics"]);
    let mut passed = process::foreground(&mut tests)?.success();
    if !process::foreground(&mut build)?.success() {
        return Ok(ExitCode::FAILURE);
    }
    passed &= runs_a_test(kit_tests)?;
    let bin = format!("{TARGET}/debug");
    let kit = Command::new(format!("{bin}/accio-grade"));
    for mut tool in [Tool::E2e.command(), kit] {
        passed &= process::foreground(tool.args(["--bin-dir", &bin]))?.success();
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs tests; returns whether all passed. None is an error: a filter that matches no test, or tests that
/// this build ignores, would pass unnoticed.
fn runs_a_test(step: Step) -> anyhow::Result<bool> {
    let title = step.title.clone();
    let (code, counts) = crate_tests::run(vec![step])?;
    anyhow::ensure!(code != 0 || counts.passed > 0, "{title}: no test ran: {counts}");
    Ok(code == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_tests_is_an_error() {
        let step = |counts: &str| {
            let mut command = Command::new("echo");
            command.arg(format!("test result: ok. {counts}; 0 measured; 9 filtered out"));
            Step { title: "tests".to_owned(), command }
        };
        assert!(runs_a_test(step("1 passed; 0 failed; 0 ignored")).unwrap());
        let error = runs_a_test(step("0 passed; 0 failed; 1 ignored")).unwrap_err().to_string();
        assert_eq!(error, "tests: no test ran: 0 passed, 0 failed, 1 ignored");
        let failing = Step { title: "tests".to_owned(), command: Command::new("false") };
        assert!(!runs_a_test(failing).unwrap());
    }
}
