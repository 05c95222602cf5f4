//! Only the harness starts processes, searches for programs and free ports, sets resource limits
//! and creates namespaces, and it depends on no other crate of the project.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Calls that only the harness may contain.
const RESERVED: [&str; 5] = ["split_paths(", "setrlimit(", "prlimit(", "\"netns", "\"unshare\""];

/// Calls that only the harness may contain, in files that mention [`std::process::Command`].
const STARTS: [&str; 3] = [".spawn()", ".output()", ".status()"];

/// Files and directories that may contain these calls, each with the reason.
const EXCEPTIONS: [(&str, &str); 10] = [
    ("accio-cli/src/descriptors.rs", "raises the limit of the programs themselves"),
    ("accio-cli/src/server/journal/opener.rs", "starts the helper that reopens the journal"),
    ("accio-server/src/reopener.rs", "starts the helper that opens uploads for their digests"),
    ("accio-client/src/command.rs", "--from-command"),
    ("accio-server/src/commands", "--on-commit and --accept-if"),
    ("accio-server/src/sandbox", "tests that a sandboxed process starts no other"),
    ("accio-proto/tests/descriptors.rs", "a test of the library, which uses no tool"),
    ("accio-proto/tests/api/threads_refused.rs", "a test of the library, which uses no tool"),
    ("accio-proto/src/client/tests", "a test of the library, which uses no tool"),
    ("accio-proto/src/os_error.rs", "a test of the library, which uses no tool"),
];

/// Directories whose files are not checked: build results, the harness, and programs that
/// imitate students' programs.
const SKIPPED: [&str; 4] = ["target", ".git", "xtask/harness", "xtask/grade/src/bin/faulty"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn sources(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            if !SKIPPED.iter().any(|skipped| path == root.join(skipped)) {
                sources(root, &path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
}

/// Returns the calls in a file that only the harness may contain.
fn violations(text: &str) -> Vec<String> {
    let mut found: Vec<String> =
        RESERVED.iter().filter(|call| text.contains(**call)).map(|call| call.to_string()).collect();
    if text.contains("Command") {
        found.extend(STARTS.iter().filter(|call| text.contains(**call)).map(|c| c.to_string()));
    }
    // A listener that is dropped in the same statement only serves to find a free port.
    let port =
        text.split("TcpListener::bind(").skip(1).filter_map(|rest| rest.split([';', '}']).next());
    if port.into_iter().any(|statement| statement.contains(".local_addr()")) {
        found.push("TcpListener::bind(…).local_addr()".to_owned());
    }
    found
}

#[test]
fn only_the_harness_makes_reserved_calls() {
    let root = workspace();
    let mut files = Vec::new();
    sources(&root, &root, &mut files);
    assert!(files.len() > 350, "{}", files.len());
    let mut unused: Vec<&str> = EXCEPTIONS.iter().map(|(path, _)| *path).collect();
    let mut wrong = Vec::new();
    for file in files {
        let found = violations(&fs::read_to_string(root.join(&file)).unwrap());
        if found.is_empty() {
            continue;
        }
        match EXCEPTIONS.iter().find(|(path, _)| file.starts_with(path)) {
            Some((path, _)) => unused.retain(|other| other != path),
            None => wrong.push(format!("{}: {found:?}", file.display())),
        }
    }
    assert!(wrong.is_empty(), "use the harness for this: {wrong:#?}");
    assert!(unused.is_empty(), "exceptions that are not needed: {unused:?}");
}

#[test]
fn finds_each_kind_of_violation() {
    for text in [
        "Command::new(\"x\").spawn()",
        "let command: Command; command.output()",
        "Command::new(\"x\").status()",
        "env::split_paths(&path)",
        "rustix::process::setrlimit(Resource::As, limit)",
        "prlimit(None, Resource::As, limit)",
        "ip([\"netns\", \"add\"])",
        "Command::new(\"unshare\")",
        "TcpListener::bind(\"[::1]:0\")?\n    .local_addr()?",
    ] {
        assert_eq!(violations(text).len(), 1, "{text}");
    }
    let kept = "let l = TcpListener::bind(any)?; let a = l.local_addr()?; scope.spawn(|| a)";
    assert_eq!(violations(kept), [""; 0]);
}

#[test]
fn the_harness_depends_on_no_other_crate_of_the_project() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let text = fs::read_to_string(manifest).unwrap();
    let dependencies = text.split_once("[dependencies]").unwrap().1;
    assert!(!dependencies.contains("accio"), "{dependencies}");
}
