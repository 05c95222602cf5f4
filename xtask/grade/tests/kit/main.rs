//! The conformance kit is tested on programs with one fault each, on correct ones, on hostile ones
//! and on correct ones in Perl; its reports by what their readers ask.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "a test")]

mod faults;
mod hostile;
mod page;
mod reports;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The grader, to be told what to grade.
fn kit() -> Command {
    Command::new(env!("CARGO_BIN_EXE_accio-grade"))
}

/// Puts a script there that runs.
fn script(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Writes a submission: scripts that become the faulty programs.
fn submit(class: &Path, name: &str, programs: &[&str], dialect: &str, fault: &str) {
    for program in programs {
        let own = env!("CARGO_BIN_EXE_faulty");
        let text = format!("exec '{own}' {program} {dialect} {fault} \"$@\"");
        script(&class.join(name).join(program), &text);
    }
}

/// A submission and the checks it lost, without the program's name.
type Graded = (String, BTreeSet<String>);

/// Grades a class: what each lost, and the exit code.
fn grade(class: &Path, dialect: &str, more: &[&str]) -> (Vec<Graded>, i32) {
    let results = tempfile::tempdir().unwrap();
    let output = kit()
        .args(["--json", "--network", "proxy", "--handshake", dialect, "--submissions"])
        .arg(class)
        .arg("--results")
        .arg(results.path())
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let run: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    });
    let mut graded = Vec::new();
    for submission in run["submissions"].as_array().unwrap() {
        let name = submission["name"].as_str().unwrap();
        let mut lost = BTreeSet::new();
        for check in submission["checks"].as_array().unwrap() {
            let id = check["id"].as_str().unwrap();
            match check["outcome"].as_str().unwrap() {
                "failed" => {
                    // What a fault that is not lost as it should be came to.
                    if std::env::var_os("KIT_TELL").is_some() {
                        eprintln!(
                            "{name}, {id}: {} / {} / {}",
                            check["expected"], check["actual"], check["during"]
                        );
                    }
                    lost.insert(id.split('/').nth(1).unwrap().to_owned());
                }
                "trouble" => panic!("{name}, {id}: {check:#}"),
                _ => {}
            }
        }
        for end in ["txt", "json"] {
            assert!(results.path().join(format!("{name}.{end}")).exists(), "{name}.{end}");
        }
        graded.push((name.to_owned(), lost));
    }
    (graded, output.status.code().unwrap())
}

fn set(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
