//! Checks that only the harness starts processes, looks for programs, raises limits and creates
//! namespaces, and that it does not depend on the tools.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Calls that only the harness may contain.
const RESERVED: [&str; 6] =
    [".spawn()", ".output()", ".status()", "split_paths(", "setrlimit(", "\"netns"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        // The faulty programs stand in for students' programs, which do not use the harness.
        if path.is_dir() && !path.ends_with("bin/faulty") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn only_the_harness_starts_processes_and_creates_namespaces() {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for tool in ["e2e", "grade", "torture", "bench", "cluster", "."] {
        sources(&xtask.join(tool).join("src"), &mut files);
    }
    assert!(files.len() > 80, "{}", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for call in RESERVED {
            assert!(!text.contains(call), "{}: {call}", file.display());
        }
    }
}

#[test]
fn the_harness_does_not_depend_on_the_tools() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let text = fs::read_to_string(manifest).unwrap();
    let dependencies = text.split_once("[dependencies]").unwrap().1;
    assert!(!dependencies.contains("accio"), "{dependencies}");
}
