//! Tests the conformance kit with faulty, correct and hostile programs, and with correct programs
//! in Perl; tests its reports with what their consumers require.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "a test")]

mod attacks;
mod build;
mod class;
mod demo_server;
mod faults;
mod formats;
mod hidden_sockets;
mod hostile;
mod instructors;
mod isolation;
mod page;
mod reports;
#[cfg(target_os = "linux")]
mod restrictions;
mod skips;
#[cfg(target_os = "linux")]
mod socket_tables;
mod timing;
mod verdicts;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use accio_harness::process;
use serde_json::Value;

use crate::skips::{LOSS, WITH_CLIENT};

/// Time limit for a run of the kit.
const LIMIT: Duration = Duration::from_secs(600);

/// Returns a command for the kit, without arguments. `ACCIO_GRADE` is the path of another kit, such as
/// a release build.
fn kit() -> Command {
    let own = || env!("CARGO_BIN_EXE_accio-grade").into();
    let mut kit = Command::new(std::env::var_os("ACCIO_GRADE").unwrap_or_else(own));
    // With it, the kit would name `cargo xtask grade` in the commands that repeat a check.
    kit.env_remove("CARGO");
    kit
}

/// Runs a command and waits for its end.
fn run(command: &mut Command) -> Output {
    process::output(command, b"", LIMIT).unwrap()
}

/// Writes an executable script.
fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Writes a submission: a link to the faulty programs, and scripts that execute it. The user that the
/// kit runs them as can read a submission, but not each directory with a build of this workspace.
fn submit(class: &Path, name: &str, programs: &[&str], dialect: &str, fault: &str) {
    add_faulty(&class.join(name));
    for program in programs {
        let text = format!("exec \"${{0%/*}}/.bin/faulty\" {program} {dialect} {fault} \"$@\"");
        script(&class.join(name).join(program), &text);
    }
}

/// Adds `.bin/faulty` to a submission.
fn add_faulty(submission: &Path) {
    // The kit searches visible files for the texts of a dialect.
    let hidden = submission.join(".bin");
    fs::create_dir_all(&hidden).unwrap();
    let own = hidden.join("faulty");
    if !own.exists() {
        let built = env!("CARGO_BIN_EXE_faulty");
        // It is copied if the submission is in another file system.
        fs::hard_link(built, &own).or_else(|_| fs::copy(built, &own).map(drop)).unwrap();
    }
}

/// A submission and the checks that it failed, without the program's name.
type Graded = (String, BTreeSet<String>);

/// Grades a class; returns the failed checks of each submission, and the exit code. Panics if a check
/// was skipped for another reason than `--network proxy` or a submission without a client.
fn grade(class: &Path, dialect: &str, more: &[&str]) -> (Vec<Graded>, i32) {
    let results = tempfile::tempdir().unwrap();
    let output = run(kit()
        .args(["--json", "--network", "proxy", "--handshake", dialect, "--submissions"])
        .arg(class)
        .arg("--results")
        .arg(results.path())
        .args(more));
    let text = String::from_utf8(output.stdout).unwrap();
    let run: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    let mut graded = Vec::new();
    let mut skipped = Vec::new();
    for submission in run["submissions"].as_array().unwrap() {
        let name = submission["name"].as_str().unwrap();
        let own = fs::read_dir(class.join(name)).unwrap().flatten();
        let has_client =
            own.map(|entry| entry.file_name()).any(|own| own.as_bytes().starts_with(b"client"));
        let chosen = if has_client { &[LOSS][..] } else { &[LOSS, WITH_CLIENT] };
        skipped.extend(skips::of(name, submission, chosen).wrong);
        let mut failed = BTreeSet::new();
        for check in submission["checks"].as_array().unwrap() {
            let id = check["id"].as_str().unwrap();
            match check["outcome"].as_str().unwrap() {
                "failed" => {
                    // Print the failure, to find out why a result was unexpected.
                    if std::env::var_os("KIT_TELL").is_some() {
                        eprintln!(
                            "{name}, {id}: {} / {} / {}",
                            check["expected"], check["actual"], check["during"]
                        );
                    }
                    failed.insert(id.split('/').nth(1).unwrap().to_owned());
                }
                "passed" | "skipped" => {}
                // The first check of each program is about the repository.
                "not-graded" if id.ends_with("/1") || dialect != "confirm" => {}
                _ => panic!("{name}, {id}: {check:#}"),
            }
        }
        for end in ["txt", "json"] {
            assert!(results.path().join(format!("{name}.{end}")).exists(), "{name}.{end}");
        }
        graded.push((name.to_owned(), failed));
    }
    assert_eq!(skipped, Vec::<String>::new());
    (graded, output.status.code().unwrap())
}

fn set(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
