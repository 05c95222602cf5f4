//! Checks that every test named in SECURITY.md's table of promises exists.

use std::fs;
use std::path::{Path, PathBuf};

use super::runner::{Case, RunOptions};
use super::{
    chaos, disk, exhaustion, kill, network, panics, power_loss, proxies, saturation, slow_disk,
    stop, syscalls,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Parses the table of promises into pairs of number and test names.
fn promises(text: &str) -> Vec<(String, Vec<String>)> {
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let number = cells.next()?;
        number.strip_prefix('I')?.parse::<u8>().ok()?;
        let names = cells.nth(1)?.split('`').skip(1).step_by(2).map(str::to_owned);
        Some((number.to_owned(), names.collect()))
    });
    rows.collect()
}

/// Returns the contents of all Rust sources below a directory.
fn sources(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(path).unwrap());
        }
    }
    found
}

/// Returns whether `name` matches a pattern in which `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut open = false;
    for piece in pieces {
        open = piece.is_empty();
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    open || rest.is_empty()
}

fn torture_names() -> Vec<String> {
    let options = RunOptions { quick: false, unprivileged: false, seed: 1, jobs: 1, keep: false };
    let parts: [fn(&RunOptions) -> Vec<Case>; 11] = [
        kill::cases,
        power_loss::cases,
        disk::cases,
        exhaustion::cases,
        chaos::cases,
        network::cases,
        saturation::cases,
        slow_disk::cases,
        stop::cases,
        panics::cases,
        proxies::cases,
    ];
    let cases = parts.into_iter().flat_map(|cases| cases(&options));
    cases.map(|case| case.name).chain(syscalls::sample_names()).collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let promises = promises(&fs::read_to_string(root().join("SECURITY.md")).unwrap());
    let numbers: Vec<&str> = promises.iter().map(|(number, _)| number.as_str()).collect();
    assert_eq!(
        numbers,
        ["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11", "I12", "I13", "I14"],
        "the promises"
    );
    let torture = torture_names();
    let crates = [
        "accio-proto",
        "accio-tokio",
        "accio-cli",
        "accio-store",
        "accio-server",
        "accio-client",
        "accio-simplified",
        "xtask",
    ];
    let sources: Vec<String> = crates.iter().flat_map(|name| sources(&root().join(name))).collect();
    let scenarios = self::sources(&root().join("xtask/e2e/src/scenarios"));
    let has_test = |name: &str| {
        let function = format!("fn {name}(");
        sources.iter().any(|text| text.contains("#[test]") && text.contains(&function))
    };
    for (number, names) in promises {
        assert!(!names.is_empty(), "{number} names no test");
        for name in names {
            let exists = if let Some(file) = name.strip_prefix("tests/") {
                let tests = root().join("accio-proto/tests");
                tests.join(file).exists()
            } else if let Some(module) = name.strip_suffix("::tests") {
                let file = format!("{module}.rs");
                let places = ["accio-server/src", "accio-proto/src"];
                places.iter().any(|place| root().join(place).join(&file).exists())
            } else if name.contains('/') {
                torture.iter().any(|case| matches(&name, case))
                    || scenarios.iter().any(|text| text.contains(&format!("\"{name}\"")))
            } else {
                has_test(&name)
            };
            assert!(exists, "{number} names the test {name}, which does not exist");
        }
    }
}

#[test]
fn an_asterisk_matches_any_text() {
    for (pattern, name, expected) in [
        ("a/b", "a/b", true),
        ("a/b", "a/bc", false),
        ("a/*", "a/b/c", true),
        ("a/*/d/*", "a/b/c/d/e", true),
        ("a/*-s", "a/10-s", true),
        ("a/*-s", "a/10-s-x", false),
        ("a/*", "b/a/c", false),
    ] {
        assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
    }
}

/// I9: no code that can end a connection reads the wall clock, except for the time of an outcome's
/// end, which is only reported.
#[test]
fn no_time_limit_uses_the_wall_clock() {
    let library = root().join("accio-proto/src");
    for place in ["session", "server", "handshake", "sink", "sys", "client"] {
        for text in sources(&library.join(place)) {
            let is_reported = |line: &&str| line.contains("ended: SystemTime");
            let ends = text.lines().any(|line| is_reported(&line));
            let lines = text.lines().filter(|line| !is_reported(line));
            for line in lines.filter(|line| !(ends && line.starts_with("use "))) {
                for clock in ["SystemTime", "UNIX_EPOCH", "Realtime", "REALTIME"] {
                    assert!(!line.contains(clock), "{place} names {clock}: {line}");
                }
            }
        }
    }
}
