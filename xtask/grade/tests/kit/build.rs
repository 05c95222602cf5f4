//! Submissions in C++, which the kit builds: what it builds, in which bounds, and what it reports.

use std::fs;
use std::path::Path;

use accio_harness::tools;
use serde_json::Value;

use crate::{kit, run, script, skips};

/// Writes a C++ program that becomes the client `fault`, and a Makefile that builds it.
fn project(dir: &Path, fault: &str) {
    fs::create_dir_all(dir).unwrap();
    let source = format!(
        "#include <unistd.h>\n#include <vector>\nint main(int count, char **words) {{\n\
         std::vector<char *> all = {{words[0], (char *)\"client\", (char *)\"confirm\",\n\
         (char *)\"{fault}\"}};\nfor (int i = 1; i <= count; i++) all.push_back(words[i]);\n\
         execv(\"{}\", all.data());\nreturn 1;\n}}\n",
        env!("CARGO_BIN_EXE_faulty")
    );
    fs::write(dir.join("client.cpp"), source).unwrap();
    fs::write(dir.join("Makefile"), "client: client.cpp\n\tg++ -o $@ client.cpp\n").unwrap();
}

fn has_tools(test: &str, names: &[&str]) -> bool {
    if env!("CARGO_BIN_EXE_faulty").starts_with("/tmp/") {
        skips::tell(test, "this workspace is below /tmp, which submissions do not see");
        return false;
    }
    let missing = names.iter().find(|name| tools::find(name).is_none());
    if let Some(name) = missing {
        skips::tell(test, format!("{name} is not installed"));
    }
    missing.is_none()
}

/// Grades two quick checks of the client in `dir`; returns the exit code, stdout and stderr.
fn graded(dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = run(kit()
        .args(["--no-retry", "--handshake", "confirm", "--filter", "client/2"])
        .args(["--filter", "client/4"])
        .args(more)
        .arg(dir));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_submission_with_a_makefile_is_built_in_a_copy() {
    if !has_tools("a_submission_with_a_makefile_is_built", &["make", "g++"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("amara");
    project(&own, "no-usage");
    // A program of another machine, and one that is newer than its source.
    fs::write(own.join("client"), b"\x7fELF nothing that runs here").unwrap();
    let (code, stdout, stderr) = graded(&own, &["--json"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let results: Value = serde_json::from_str(&stdout).unwrap();
    let one = &results["submissions"][0];
    assert_eq!((&one["earned"], &one["possible"]), (&10.into(), &15.into()), "{one:#}");
    assert!(!one["checks"].to_string().contains("build-0"), "{one:#}");
    assert_eq!(fs::read(own.join("client")).unwrap(), b"\x7fELF nothing that runs here");
}

#[test]
fn a_submission_with_a_cmake_file_is_built() {
    if !has_tools("a_submission_with_a_cmake_file_is_built", &["cmake", "make", "g++"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("amara");
    project(&own, "none");
    let text = "cmake_minimum_required(VERSION 3.10)\nproject(accio CXX)\n\
                add_executable(client client.cpp)\n";
    fs::write(own.join("CMakeLists.txt"), text).unwrap();
    let (code, stdout, stderr) = graded(&own, &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.starts_with("amara: 15 of 15 points"), "{stdout}");
}

#[test]
fn a_failed_build_is_reported_with_the_compilers_message() {
    if !has_tools("a_failed_build_is_reported", &["make", "g++"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("class");
    for name in ["good", "wrong", "empty"] {
        project(&class.join(name), "none");
    }
    fs::write(class.join("wrong/client.cpp"), "int main() { return 0 }\n").unwrap();
    fs::write(class.join("empty/Makefile"), "all:\n\ttrue\n").unwrap();
    fs::write(class.join("empty/client.cpp"), "").unwrap();

    let results = dir.path().join("results.json");
    let (code, _, stderr) =
        graded(&class.join("wrong"), &["--gradescope", results.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{stderr}");
    let first = stderr.lines().next().unwrap();
    let start = "ERROR: the build with make failed: exit code 2: client.cpp:1:";
    assert!(first.starts_with(start) && first.contains("error: "), "{stderr}");
    let json: Value = serde_json::from_slice(&fs::read(&results).unwrap()).unwrap();
    assert!(json["output"].as_str().unwrap().contains("client.cpp:1:"), "{json}");

    let output = run(kit()
        .args(["--no-retry", "--handshake", "confirm", "--filter", "client/4", "--submissions"])
        .arg(&class)
        .args(["--csv", "points.csv", "--html", "page.html"])
        .current_dir(dir.path()));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let line = |name: &str| stdout.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("good").contains("10/10"), "{stdout}");
    assert!(line("wrong").contains("nothing to grade: the build with make failed: "), "{stdout}");
    assert!(line("empty").contains("made neither client, server nor server-s"), "{stdout}");
    let text = fs::read_to_string(dir.path().join("accio-results/wrong.txt")).unwrap();
    assert!(text.contains("client.cpp:1:") && text.lines().count() > 3, "{text}");
}

#[test]
fn a_build_is_bounded_and_cannot_write_elsewhere() {
    if !has_tools("a_build_is_bounded", &["make", "g++"]) {
        return;
    }
    let probe = run(kit().arg("__sandbox-probe"));
    if !probe.status.success() {
        skips::tell("a_build_is_bounded", String::from_utf8_lossy(&probe.stderr).trim_end());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("amara");
    project(&own, "none");
    fs::write(dir.path().join("secret"), "the secret").unwrap();
    let outside = dir.path().join("outside");
    // It must not matter that a part of the attack fails.
    let attack = format!(
        "touch {own}/mark {outside}; cat {secret}; ln -s {secret} leak; \
         (setsid sleep 600 >/dev/null 2>&1 &) ; g++ -o client client.cpp",
        own = own.display(),
        outside = outside.display(),
        secret = dir.path().join("secret").display()
    );
    script(&own.join("attack.sh"), &attack);
    fs::write(own.join("Makefile"), "client: client.cpp\n\tsh attack.sh\n").unwrap();
    let (code, stdout, stderr) = graded(&own, &[]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.starts_with("amara: 15 of 15 points"), "{stdout}");
    assert!(!own.join("mark").exists() && !outside.exists());

    fs::write(own.join("Makefile"), "client:\n\tcat /dev/zero >big; false\n").unwrap();
    let (code, _, stderr) = graded(&own, &["--disk", "64"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("more than 64 MiB of files"), "{stderr}");
}

#[test]
fn a_build_cannot_show_files_of_others_to_its_program() {
    let test = "a_build_cannot_show_files_of_others_to_its_program";
    if !has_tools(test, &["make"]) {
        return;
    }
    let probe = run(kit().arg("__sandbox-probe"));
    if !probe.status.success() {
        skips::tell(test, String::from_utf8_lossy(&probe.stderr).trim_end());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("amara"), dir.path().join("other"));
    fs::create_dir_all(&own).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes"), "the secret\n").unwrap();
    let other = other.display();
    // The copy that is built becomes a link to a directory of others.
    let attack = format!(
        "client:\n\tprintf '#!/bin/sh\\ncat {other}/notes >&2\\nexit 1\\n' >../built/client\n\
         \tchmod +x ../built/client\n\tmv ../source ../moved\n\tln -s {other} ../source\n"
    );
    fs::write(own.join("Makefile"), attack).unwrap();
    let (code, stdout, stderr) = graded(&own, &["--json"]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(stdout.contains("notes") && !stdout.contains("the secret"), "{stdout}");
}

#[test]
fn the_history_of_a_built_submission_counts() {
    let test = "the_history_of_a_built_submission_counts";
    if !has_tools(test, &["make", "g++", "git"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("class");
    let own = class.join("amara");
    project(&own, "none");
    fs::write(own.join("README.md"), "").unwrap();
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(&own).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
        let output = run(command.args(arguments));
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q"]);
    for message in ["one", "two", "three"] {
        git(&["commit", "-q", "--allow-empty", "-m", message]);
    }
    let output = run(kit()
        .args(["--json", "--no-retry", "--handshake", "confirm", "--filter", "client/1"])
        .args(["--repository-points", "--submissions"])
        .arg(&class)
        .current_dir(dir.path()));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["submissions"][0]["earned"], 5, "{results:#}");
}
