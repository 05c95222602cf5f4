//! Features for instructors: CSV, rubrics, remarks on the source code, repeated runs of a class.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use accio_harness::process::{Input, NO_OWNER, Process};
use accio_harness::tools;
use accio_harness::wait::wait_until;
use serde_json::Value;

use crate::{kit, run, skips, submit};

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Grades the class in `dir/class` by two quick checks, with these further arguments.
fn grade(dir: &Path, more: &[&str]) -> Output {
    run(kit()
        .args(["--filter", "client/2", "--filter", "client/4", "--handshake", "confirm"])
        .args(["--no-retry", "--results"])
        .arg(dir.join("results"))
        .arg("--submissions")
        .arg(dir.join("class"))
        .args(more)
        .current_dir(dir))
}

#[test]
fn csv_files_have_the_columns_that_grade_books_import() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "class/amara", &["client"], "confirm", "none");
    submit(dir.path(), "class/=bén \"jr\", 2;+3", &["client"], "confirm", "no-usage");
    fs::create_dir(dir.path().join("class/cy")).unwrap();
    let roster = "submission,student_id,name,email\namara,007,\"Okafor, Amara\",a@example.org\n";
    fs::write(dir.path().join("roster.csv"), roster).unwrap();
    let table = |columns: &str| -> Vec<csv::StringRecord> {
        let output = grade(
            dir.path(),
            &["--csv", "points.csv", "--roster", "roster.csv", "--columns", columns, "--changed"],
        );
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = fs::read_to_string(dir.path().join("points.csv")).unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        reader.records().map(Result::unwrap).collect()
    };
    let full = table("full");
    let column = |name: &str| full[0].iter().position(|field| field == name).unwrap();
    let field = |row: usize, name: &str| full[row][column(name)].to_owned();
    let text = fs::read_to_string(dir.path().join("points.csv")).unwrap();
    assert!(
        text.contains("\n\"amara\",\"007\",15,15,15,"),
        "ids are quoted, points are not: {text}"
    );
    let name = "'=bén \"jr\", 2;'+3";
    assert_eq!(field(1, "submission"), name, "a spreadsheet must not evaluate it");
    assert_eq!((field(1, "total"), field(1, "client/2")), ("10".into(), "0".into()));
    assert_eq!((field(2, "student_id"), field(2, "total")), ("007".into(), "15".into()));
    assert_eq!((field(2, "possible"), field(2, "dialect")), ("15".into(), "confirm".into()));
    assert!(field(3, "problem").contains("neither client"), "{full:?}");
    assert_eq!(field(2, "kit_version"), env!("CARGO_PKG_VERSION"));

    let moodle = table("moodle");
    assert_eq!(&moodle[0], &["ID number", "Email address", "Accio", "Feedback"][..]);
    assert_eq!(&moodle[2], &["007", "a@example.org", "15", "all checks passed"][..]);
    assert_eq!(&moodle[1][3], "failed: client/2");
    let canvas = table("canvas");
    let header = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Accio"];
    assert_eq!(&canvas[0], &header[..]);
    assert_eq!(&canvas[1], &["    Points Possible", "", "", "", "", "15"][..]);
    assert_eq!(&canvas[3], &["Okafor, Amara", "", "007", "", "", "15"][..]);
}

#[test]
fn only_changed_or_unfinished_submissions_are_graded_again() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "class/amara", &["client"], "confirm", "no-usage");
    submit(dir.path(), "class/ben", &["client"], "confirm", "no-usage");
    let earned = |more: &[&str]| -> Vec<u64> {
        let output = grade(dir.path(), &[more, &["--json"]].concat());
        let run: Value = serde_json::from_slice(&output.stdout).unwrap();
        let all = run["submissions"].as_array().unwrap();
        all.iter().map(|one| one["earned"].as_u64().unwrap()).collect()
    };
    let mark = |name: &str| {
        // Marks the saved result, to see whether it is used.
        let path = dir.path().join("results").join(format!("{name}.json"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\"failed\"", "\"passed\"", 1)).unwrap();
    };
    assert_eq!(earned(&[]), [10, 10]);
    mark("amara");
    mark("ben");
    assert_eq!(earned(&["--changed"]), [15, 15], "nothing has changed");
    submit(dir.path(), "class/ben", &["client"], "confirm", "exit-zero");
    assert_eq!(earned(&["--changed"]), [15, 10], "only ben is graded");
    mark("ben");
    fs::remove_file(dir.path().join("results/amara.json")).unwrap();
    assert_eq!(earned(&["--resume"]), [10, 15], "only amara is graded");
    assert_eq!(earned(&[]), [10, 10], "without the options everything is graded");
}

#[test]
fn a_killed_run_of_a_class_resumes_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "class/amara", &["client"], "confirm", "no-usage");
    // It connects after three seconds, so that there is time for the kill.
    submit(dir.path(), "class/ben", &["client"], "confirm", "late-connect");
    let arguments = ["--filter", "client/2", "--filter", "client/4", "--handshake", "confirm"];
    let mut command = kit();
    command.args(arguments).args(["--no-retry", "--at-once", "1", "--submissions", "class"]);
    command.args(["--results", "results"]).current_dir(dir.path());
    let mut first = Process::spawn(command, NO_OWNER, Input::Null).unwrap();
    let (done, open) = (dir.path().join("results/amara.json"), dir.path().join("results/ben.json"));
    assert!(wait_until(Duration::from_secs(120), || done.exists()));
    first.kill().unwrap();
    assert!(!open.exists(), "the run ended before it was killed");
    // Marks the saved result, to see whether it is used.
    let text = fs::read_to_string(&done).unwrap();
    fs::write(&done, text.replacen("\"failed\"", "\"passed\"", 1)).unwrap();
    let output = grade(dir.path(), &["--json", "--resume"]);
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let earned: Vec<_> =
        run["submissions"].as_array().unwrap().iter().map(|one| one["earned"].as_u64()).collect();
    assert_eq!(earned, [Some(15), Some(15)], "{run:#}");
    assert!(open.exists());
}

#[test]
fn a_rubric_changes_points_and_checks() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "one", &["client"], "confirm", "no-usage");
    let printed = run(kit().args(["--print-rubric", "--filter", "client/2"]));
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.starts_with("check,points,about\nclient/2,5,"), "{text}");
    let rubric = dir.path().join("rubric.csv");
    fs::write(&rubric, "check,points\nclient/2,20\nclient/4,1\n").unwrap();
    let output = run(kit()
        .args(["--json", "--no-retry", "--handshake", "confirm", "--rubric"])
        .arg(&rubric)
        .arg(dir.path().join("one")));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let one = &run["submissions"][0];
    assert_eq!((&one["earned"], &one["possible"]), (&1.into(), &21.into()), "{one:#}");
    assert_eq!(one["checks"].as_array().unwrap().len(), 2);
    fs::write(&rubric, "check,points\nclient/99,1\n").unwrap();
    let output = super::run(kit().arg("--rubric").arg(&rubric).arg("--list"));
    assert_eq!(output.status.code(), Some(2));
}

const PYTHON: &str = "import signal, sys
def stop(number, frame):
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
text = open('notes').read()
data = open('notes', 'rb').read().decode('utf-8')
# sys.exit and open('x') in a comment or 'a string' are none
";

#[test]
fn remarks_name_files_and_lines_and_can_cost_points() {
    if tools::find("python3").is_none() || tools::find("git").is_none() {
        skips::tell("remarks_name_files_and_lines", "python3 or git is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("amara");
    fs::create_dir_all(own.join("__pycache__")).unwrap();
    fs::write(own.join("client.py"), PYTHON).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(&own).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
        let output = run(command.args(arguments));
        assert!(output.status.success(), "{output:?}");
    };
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    let graded = |more: &[&str]| -> Value {
        let output = run(kit()
            .args(["--json", "--no-retry", "--handshake", "confirm", "--filter", "client/1"])
            .args(more)
            .arg(&own));
        let run: Value = serde_json::from_slice(&output.stdout).unwrap();
        run["submissions"][0].clone()
    };
    let one = graded(&[]);
    let remarks: Vec<String> = one["remarks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|remark| format!("{}:{}", remark["file"].as_str().unwrap(), remark["line"]))
        .collect();
    let expected = [":0", "__pycache__:0", "client.py:3", "client.py:5", "client.py:6"];
    assert_eq!(remarks, expected, "{one:#}");
    assert_eq!(one["checks"][0]["outcome"], "not-graded");

    let one = graded(&["--repository-points"]);
    let actual = one["checks"][0]["actual"].as_str().unwrap();
    assert!(actual.starts_with("1 commits; no README; "), "{actual}");
    assert_eq!((&one["earned"], &one["possible"]), (&0.into(), &5.into()));
    fs::remove_dir(own.join("__pycache__")).unwrap();
    fs::write(own.join("README.md"), "").unwrap();
    fs::write(own.join("client.py"), "import sys\nsys.exit(1)\n").unwrap();
    git(&["commit", "-q", "--allow-empty", "-m", "two"]);
    git(&["commit", "-q", "--allow-empty", "-m", "three"]);
    assert_eq!(graded(&["--repository-points"])["earned"], 5);
}

#[test]
fn a_directory_is_the_only_necessary_argument() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "amara", &["client"], "accio", "no-usage");
    fs::write(dir.path().join("amara/wire.py"), r"GREETING = b'accio\r\n'").unwrap();
    let output = run(kit()
        .arg("amara")
        .args(["--filter", "client/2", "--filter", "client/4", "--no-retry"])
        .current_dir(dir.path()));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().take(5).collect();
    let expected = [
        "amara: 10 of 15 points, dialect accio",
        "client    10 of 15 points",
        "server-s  not found",
        "server    not found",
        "fix first client/2: ",
    ];
    assert_eq!(lines[..4], expected[..4], "{text}");
    assert!(lines[4].starts_with(expected[4]), "{text}");
    assert!(text.contains("accio-grade amara --handshake accio --filter client/2"), "{text}");
}

#[test]
fn hidden_checks_and_empty_scores_are_as_gradescope_expects() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "one", &["client"], "confirm", "none");
    let results = dir.path().join("results.json");
    let grade = |more: &[&str]| {
        run(kit()
            .args(["--handshake", "confirm", "--subject"])
            .arg(dir.path().join("one"))
            .arg("--gradescope")
            .arg(&results)
            .args(more));
        (fs::read_to_string(&results).unwrap(), read(&results))
    };
    let (text, _) = grade(&["--filter", "client/1"]);
    assert!(text.contains("\"score\": 0.0") && !text.contains("-0.0"), "{text}");
    let filters = ["--filter", "client/2", "--filter", "client/4"];
    let (_, json) =
        grade(&[&filters[..], &["--hidden", "client/4", "--after-due", "client/2"]].concat());
    let seen: Vec<_> = json["tests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|test| (test["number"].as_str().unwrap(), test["visibility"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("client/2", "after_due_date"), ("client/4", "hidden")]);

    let classroom = dir.path().join("result.json");
    run(kit()
        .args(["--handshake", "confirm", "--no-retry", "--filter", "client/2", "--subject"])
        .arg(dir.path().join("one"))
        .arg("--classroom50")
        .arg(&classroom)
        .env("CLASSROOM", "networks")
        .env("SUBMISSION_TAG", "submit/2026-01-01T00-00-00Z-abc"));
    let json = read(&classroom);
    assert_eq!(json["schema"], "classroom50/result/v1");
    let required = [
        "classroom",
        "assignment",
        "assignment_type",
        "owner",
        "submission",
        "commit",
        "release",
        "review",
        "datetime",
    ];
    assert!(required.iter().all(|name| !json[name].as_str().unwrap().is_empty()), "{json:#}");
    assert_eq!((&json["classroom"], &json["score"]), (&"networks".into(), &5.into()));
    let test = &json["tests"][0];
    assert_eq!(
        (&test["passed"], &test["score"], &test["max-score"]),
        (&true.into(), &5.into(), &5.into())
    );
    assert!(test["test-name"].as_str().unwrap().starts_with("client/2: "));
}

#[test]
fn a_failure_has_its_probable_cause_and_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "one", &["client"], "confirm", "one-recv");
    let output = run(kit()
        .args(["--json", "--no-retry", "--handshake", "confirm", "--filter", "client/split"])
        .arg("--subject")
        .arg(dir.path().join("one")));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = &run["submissions"][0]["checks"][0];
    let cause = check["cause"].as_str().unwrap_or_else(|| panic!("{check:#}"));
    assert!(cause.starts_with("One recv was taken for the whole greeting"), "{cause}");
    let timeline = check["timeline"].to_string();
    assert!(
        timeline.contains("kit → client: ") && timeline.contains("client → kit: "),
        "{check:#}"
    );
}
