//! Tests that the reports have the fields that their consumers require, even if the run is killed.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use accio_harness::process::{Input, NO_OWNER, Process};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use serde_json::Value;

use crate::{kit, run, submit};

/// Time limit for waits.
const TIMEOUT: Duration = Duration::from_secs(60);

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn gradescope_and_junit_reports_have_their_fields() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "one", &["client"], "confirm", "no-usage");
    submit(dir.path(), "one", &["server"], "confirm", "none");
    let (gradescope, junit) = (dir.path().join("results.json"), dir.path().join("junit.xml"));
    let status = run(kit()
        .args(["--filter", "client/1", "--filter", "client/2", "--filter", "server/2"])
        .args(["--filter", "server/port-zero", "--handshake", "confirm", "--subject"])
        .arg(dir.path().join("one"))
        .arg("--gradescope")
        .arg(&gradescope)
        .arg("--junit")
        .arg(&junit))
    .status;
    assert_eq!(status.code(), Some(1));

    // https://gradescope-autograders.readthedocs.io/en/latest/specs/
    let results = read(&gradescope);
    assert_eq!(results["score"], 5.0);
    assert!(results["execution_time"].is_u64() && results["output"].is_string());
    assert_eq!(
        (&results["visibility"], &results["stdout_visibility"]),
        (&"visible".into(), &"hidden".into())
    );
    let tests = results["tests"].as_array().unwrap();
    let numbers: Vec<_> = tests.iter().map(|test| test["number"].as_str().unwrap()).collect();
    assert_eq!(numbers, ["client/1", "client/2", "server/2", "server/port-zero"]);
    for test in tests {
        assert!(test["name"].is_string() && test["output"].is_string(), "{test}");
        assert_eq!(test["visibility"], "visible");
        let points = (test["score"].as_f64(), test["max_score"].as_f64(), test["status"].as_str());
        let expected = match test["number"].as_str().unwrap() {
            "client/1" => (None, None, None),
            "client/2" => (Some(0.0), Some(5.0), Some("failed")),
            "server/2" => (Some(5.0), Some(5.0), Some("passed")),
            _ => (None, None, Some("passed")),
        };
        assert_eq!(points, expected, "{test}");
    }
    let why = tests[1]["output"].as_str().unwrap();
    for part in ["expected: ", "actual: ", "rule: ", "at home: accio-grade "] {
        assert!(why.contains(part), "{why}");
    }

    let document = fs::read_to_string(&junit).unwrap();
    // By the schema of Jenkins' xUnit plugin, junit-10.xsd.
    assert!(!document.lines().nth(1).unwrap().contains("skipped"), "{document}");
    assert_eq!(
        shape(&document),
        [
            "testsuites 4 1 0",
            "testsuite 4 1 0 1",
            "testcase",
            "skipped",
            "testcase",
            "failure",
            "testcase",
            "testcase"
        ]
    );
}

/// Returns the elements of a JUnit document that CI servers read, with their counts, in order.
/// Panics if an attribute is missing.
fn shape(document: &str) -> Vec<String> {
    let mut reader = Reader::from_str(document);
    let mut elements = Vec::new();
    let take = |element: &BytesStart<'_>, names: &[&str]| {
        let values = names.iter().map(|name| {
            let attribute = element.try_get_attribute(name).unwrap();
            let attribute = attribute.unwrap_or_else(|| panic!("no {name} in {element:?}"));
            attribute.normalized_value(XmlVersion::Implicit1_0).unwrap().into_owned()
        });
        values.collect::<Vec<_>>()
    };
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return elements,
            Event::Start(element) | Event::Empty(element) => {
                let name = String::from_utf8(element.name().as_ref().to_vec()).unwrap();
                let counts = match name.as_str() {
                    "testsuites" => take(&element, &["tests", "failures", "errors"]),
                    "testsuite" => {
                        take(&element, &["name"]);
                        take(&element, &["tests", "failures", "errors", "skipped"])
                    }
                    "testcase" => {
                        let time = &take(&element, &["name", "classname", "time"])[2];
                        assert!(time.parse::<f64>().unwrap() >= 0.0);
                        Vec::new()
                    }
                    "failure" => {
                        assert!(take(&element, &["message", "type"])[0].starts_with("expected "));
                        Vec::new()
                    }
                    "skipped" => Vec::new(),
                    _ => continue,
                };
                elements.push([vec![name], counts].concat().join(" "));
            }
            _ => {}
        }
    }
}

#[test]
fn a_killed_run_leaves_its_results_so_far() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "one", &["server"], "confirm", "none");
    let results = dir.path().join("results.json");
    let mut command = kit();
    command
        .args(["--filter", "server/2", "--filter", "server/9", "--handshake", "confirm"])
        .arg("--subject")
        .arg(dir.path().join("one"))
        .arg("--gradescope")
        .arg(&results)
        .env("TMPDIR", dir.path());
    let mut run = Process::spawn(command, NO_OWNER, Input::Null).unwrap();
    let began = Instant::now();
    while !results.exists() && began.elapsed() < TIMEOUT {
        std::thread::sleep(Duration::from_millis(5));
    }
    run.kill().unwrap();
    // The processes that it had started are still running and write below this directory.
    end_all_below(dir.path());
    // server/9 takes ten seconds, so it cannot have finished before the kill.
    let results = read(&results);
    assert_eq!(results["tests"].as_array().unwrap().len(), 1, "{results:#}");
    assert_eq!(
        (&results["score"], &results["tests"][0]["number"]),
        (&5.0.into(), &"server/2".into())
    );
    assert!(results["output"].as_str().unwrap().starts_with("1 of 2 checks so far"));
}

/// Kills every process whose command line contains the path `dir`.
fn end_all_below(dir: &Path) {
    let dir = dir.to_string_lossy().into_owned();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        if let (true, Some(pid)) = (String::from_utf8_lossy(&line).contains(&dir), pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn exits_with_2_for_usage_errors_and_3_if_a_report_cannot_be_written() {
    let code = |arguments: &[&str]| run(kit().args(arguments)).status.code();
    assert_eq!(code(&["--no-such-flag"]), Some(2));
    for (arguments, text) in [
        (
            &["--list", "--filter", "nosuch"][..],
            "no check matches --filter \"nosuch\": --list alone",
        ),
        (&["--handshake", "x"], "invalid value 'x' for '--handshake <DIALECT>': must be direct, "),
        (&["broken"], "required arguments were not provided"),
        (
            &["--submissions", "/no/such/directory"],
            "--submissions /no/such/directory: no such file or directory: name a directory",
        ),
        (&["--list", "--rubric", "none.csv"], "--rubric none.csv: no such file or directory"),
    ] {
        let output = run(kit().args(arguments));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("ERROR: ") && error.contains(text), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let help = String::from_utf8(run(kit().arg("--help")).stdout).unwrap();
    assert!(help.contains("List the checks") && !help.contains("tests"), "{help}");
    assert_eq!(code(&["--subject", "/no/such/directory"]), Some(2));
    assert_eq!(code(&["--server", "python3 server.py"]), Some(2), "without {{port}}");
    let absent = ["--server-s", "no-such-interpreter server-s.xy {port}"];
    assert_eq!(code(&absent), Some(2), "not a fault of server-s.xy");
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "one", &["client"], "confirm", "none");
    let subject = dir.path().join("one");
    let subject = subject.to_str().unwrap();
    let no_file = dir.path().to_str().unwrap();
    let arguments = ["--subject", subject, "--filter", "client/2", "--junit", no_file];
    assert_eq!(code(&arguments), Some(3));
    let output = run(kit().args(["--subject", subject, "--filter", "server/9"]));
    let expected = "ERROR: nothing to grade: there is no program for server/9\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!(output.status.code(), Some(2));
    let class = dir.path().to_str().unwrap();
    let within = format!("{class}/results");
    assert_eq!(code(&["--submissions", class, "--results", &within]), Some(2));
    let limits = ["--workdir", "/no/such/directory", "--filter", "client/2", "--subject", subject];
    assert_eq!(code(&limits), Some(2));
    fs::create_dir(dir.path().join("empty")).unwrap();
    let (empty, results) = (dir.path().join("empty"), dir.path().join("results.json"));
    let (empty, file) = (empty.to_str().unwrap(), results.to_str().unwrap());
    assert_eq!(code(&["--subject", empty, "--gradescope", file]), Some(2));
    let results = read(&results);
    assert_eq!(results["score"], 0.0);
    assert!(results["output"].as_str().unwrap().starts_with("nothing to grade: "), "{results}");
}

#[test]
fn broken_servers_say_that_a_port_is_in_use() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = run(kit().args(["broken", "silent", &port.to_string()]));
    let expected = format!(
        "ERROR: cannot listen on port {port}: address already in use: choose another port\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
}

/// Returns the expected and actual behaviour of the run's only check, and the command that repeats
/// it.
fn failed(output: &[u8]) -> (Vec<Value>, String) {
    let run: Value = serde_json::from_slice(output).unwrap();
    let check = &run["submissions"][0]["checks"][0];
    assert_eq!(check["outcome"], "failed", "{check:#}");
    let what = ["id", "expected", "actual", "during"].map(|field| check[field].clone());
    (what.to_vec(), check["command"].as_str().unwrap().to_owned())
}

#[test]
fn the_command_of_a_failure_reproduces_it() {
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "a class/it's one", &["client"], "confirm", "extra-newline");
    let graded = run(kit()
        .args(["--json", "--network", "proxy", "--memory", "512", "--filter", "client/11"])
        .args(["--no-retry", "--seed", "7", "--client"])
        .arg("'a class/it'\\''s one/client' {host} {port} {file}")
        .current_dir(dir.path()));
    let (first, command) = failed(&graded.stdout);
    let own = env!("CARGO_BIN_EXE_accio-grade");
    let line = command.replacen("accio-grade", &format!("'{own}'"), 1) + " --json";
    assert!(line.contains("--memory 512 --network proxy"), "{line}");
    assert!(line.contains("--seed 7"), "{line}");
    let mut shell = Command::new("sh");
    let again = run(shell.args(["-c", &line]).env_remove("CARGO").current_dir(dir.path()));
    assert_eq!(again.status.code(), Some(1), "{line}");
    assert_eq!(failed(&again.stdout), (first, command));
}
