//! Checks the files for other systems field by field against their published formats: Gradescope's
//! specification of results.json, and Classroom 50's schema `classroom50/result/v1`.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{kit, run, submit};

/// The value of a field.
enum Kind {
    Text,
    NotEmpty,
    /// A number that is not negative, and not negative zero either.
    Number,
    Whole,
    Flag,
    OneOf(&'static [&'static str]),
    /// UTC to the second: `2026-01-31T23:59:59Z`.
    Time,
    StartsWith(&'static str),
    /// Objects with these fields.
    List(&'static [Field], Others),
}

/// Whether an object may have other fields.
#[derive(Clone, Copy, PartialEq)]
enum Others {
    Allowed,
    Refused,
}

/// A name, whether the field is required, and its value.
type Field = (&'static str, bool, Kind);

const VISIBILITY: Kind = Kind::OneOf(&["hidden", "after_due_date", "after_published", "visible"]);
const FORMAT: Kind = Kind::OneOf(&["text", "html", "simple_format", "md", "ansi"]);

/// <https://gradescope-autograders.readthedocs.io/en/latest/specs/>
static GRADESCOPE: [Field; 9] = [
    // Required unless each test has one; ours always has it.
    ("score", true, Kind::Number),
    ("execution_time", false, Kind::Number),
    ("output", false, Kind::Text),
    ("output_format", false, FORMAT),
    ("test_output_format", false, FORMAT),
    ("test_name_format", false, FORMAT),
    ("visibility", false, VISIBILITY),
    ("stdout_visibility", false, VISIBILITY),
    ("tests", false, Kind::List(&GRADESCOPE_TEST, Others::Refused)),
];
static GRADESCOPE_TEST: [Field; 9] = [
    ("score", false, Kind::Number),
    ("max_score", false, Kind::Number),
    ("status", false, Kind::OneOf(&["passed", "failed"])),
    ("name", false, Kind::Text),
    ("name_format", false, FORMAT),
    ("number", false, Kind::Text),
    ("output", false, Kind::Text),
    ("output_format", false, FORMAT),
    ("visibility", false, VISIBILITY),
];

/// `schemas/result-v1.schema.json` of <https://github.com/foundation50/classroom50>.
static CLASSROOM50: [Field; 14] = [
    ("schema", true, Kind::OneOf(&["classroom50/result/v1"])),
    ("classroom", true, Kind::NotEmpty),
    ("assignment", true, Kind::NotEmpty),
    ("assignment_type", true, Kind::OneOf(&["individual", "group"])),
    ("owner", true, Kind::NotEmpty),
    ("submission", true, Kind::StartsWith("submit/")),
    ("commit", true, Kind::NotEmpty),
    ("release", true, Kind::NotEmpty),
    ("review", true, Kind::NotEmpty),
    ("datetime", true, Kind::Time),
    ("graded_at", false, Kind::Time),
    ("score", true, Kind::Whole),
    ("max-score", true, Kind::Whole),
    ("tests", true, Kind::List(&CLASSROOM50_TEST, Others::Allowed)),
];
static CLASSROOM50_TEST: [Field; 4] = [
    ("test-name", true, Kind::NotEmpty),
    ("passed", true, Kind::Flag),
    ("score", true, Kind::Whole),
    ("max-score", true, Kind::Whole),
];

/// Returns what is wrong with `object`, which is at `place` in the document.
fn faults(object: &Value, place: &str, fields: &[Field], others: Others) -> Vec<String> {
    let Some(object) = object.as_object() else { return vec![format!("{place}: no object")] };
    let mut faults = Vec::new();
    for (name, required, kind) in fields {
        match object.get(*name) {
            None if *required => faults.push(format!("{place}.{name} is missing")),
            None => {}
            Some(Value::Array(items)) if matches!(kind, Kind::List(..)) => {
                let Kind::List(fields, others) = kind else { continue };
                for (index, item) in items.iter().enumerate() {
                    let place = format!("{place}.{name}[{index}]");
                    faults.extend(self::faults(item, &place, fields, *others));
                }
            }
            Some(value) if !is_valid(value, kind) => {
                faults.push(format!("{place}.{name}: {value}"))
            }
            Some(_) => {}
        }
    }
    if others == Others::Refused {
        let known = |name: &str| fields.iter().any(|(field, ..)| *field == name);
        let unknown = object.keys().filter(|name| !known(name));
        faults.extend(unknown.map(|name| format!("{place}.{name} is unknown")));
    }
    faults
}

fn is_valid(value: &Value, kind: &Kind) -> bool {
    let text = value.as_str();
    match kind {
        Kind::Text => text.is_some(),
        Kind::NotEmpty => text.is_some_and(|text| !text.is_empty()),
        Kind::Number => value.as_f64().is_some_and(|number| number.is_sign_positive()),
        Kind::Whole => value.is_u64(),
        Kind::Flag => value.is_boolean(),
        Kind::OneOf(words) => text.is_some_and(|text| words.contains(&text)),
        Kind::Time => text.is_some_and(|text| {
            let shape = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c });
            shape.eq("0000-00-00T00:00:00Z".chars())
        }),
        Kind::StartsWith(start) => text.is_some_and(|text| text.starts_with(start)),
        Kind::List(..) => false,
    }
}

/// Returns the command that grades three checks of the submission in `dir`: one passes, one fails,
/// and one is not graded.
fn grade(dir: &Path) -> Command {
    let mut kit = kit();
    kit.args(["--filter", "client/1", "--filter", "client/2", "--filter", "client/4"]);
    kit.args(["--no-retry", "--handshake", "confirm", "--subject"]).arg(dir);
    kit
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn results_of_gradescope_are_as_specified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("results.json");
    submit(dir.path(), "one", &["client"], "confirm", "no-usage");
    fs::create_dir(dir.path().join("empty")).unwrap();
    for (name, more, count) in [
        ("one", &[][..], 3),
        ("one", &["--hidden", "client/2", "--after-due", "client/4"][..], 3),
        ("empty", &[][..], 0),
    ] {
        run(grade(&dir.path().join(name)).arg("--gradescope").arg(&path).args(more));
        let json = read(&path);
        assert_eq!(faults(&json, "", &GRADESCOPE, Others::Refused), Vec::<String>::new());
        let tests = json["tests"].as_array().unwrap();
        let statuses: Vec<_> = tests.iter().map(|test| test["status"].as_str()).collect();
        assert_eq!(statuses, [None, Some("failed"), Some("passed")][..count], "{json:#}");
        let of = |name: &str| -> f64 { tests.iter().filter_map(|test| test[name].as_f64()).sum() };
        assert_eq!(json["score"].as_f64(), Some(of("score")));
        assert!(of("score") <= of("max_score"), "{json:#}");
        let both = |test: &Value| test["score"].is_null() == test["max_score"].is_null();
        assert!(tests.iter().all(both), "{json:#}");
    }
}

#[test]
fn results_of_classroom_50_are_valid_by_its_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    submit(dir.path(), "one", &["client"], "confirm", "no-usage");
    for variables in [&[][..], &[("ASSIGNMENT_TYPE", "group"), ("CLASSROOM", "networks")][..]] {
        let mut kit = grade(&dir.path().join("one"));
        run(kit.arg("--classroom50").arg(&path).envs(variables.iter().copied()));
        let json = read(&path);
        assert_eq!(faults(&json, "", &CLASSROOM50, Others::Refused), Vec::<String>::new());
        let tests = json["tests"].as_array().unwrap();
        assert_eq!(tests.len(), 2, "a check that is not graded is no test: {json:#}");
        for name in ["score", "max-score"] {
            let sum: u64 = tests.iter().map(|test| test[name].as_u64().unwrap()).sum();
            assert_eq!(json[name].as_u64(), Some(sum));
        }
        let within = |one: &Value| one["score"].as_u64() <= one["max-score"].as_u64();
        assert!(within(&json) && tests.iter().all(within), "{json:#}");
    }
}

#[test]
fn the_formats_refuse_other_files() {
    let wrong = serde_json::json!({
        "score": -0.0, "visibility": "unknown", "points": 1,
        "tests": [{ "status": "ok" }, 5],
    });
    let expected = [
        ".score: -0.0",
        ".visibility: \"unknown\"",
        ".tests[0].status: \"ok\"",
        ".tests[1]: no object",
        ".points is unknown",
    ];
    assert_eq!(faults(&wrong, "", &GRADESCOPE, Others::Refused), expected);
    let missing = faults(&serde_json::json!({}), "", &CLASSROOM50, Others::Refused);
    assert_eq!(missing.len(), 13, "{missing:?}");
}
