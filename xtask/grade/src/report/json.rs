//! Writes the report as JSON.

use serde::Serialize;

use crate::fingerprint::Fingerprint;
use crate::outcome::{Outcome, Report, Row};
use crate::remark::Remark;

/// Version of the format; incremented when a field changes its meaning.
pub(crate) const VERSION: u32 = 1;

/// All reports of a run.
#[derive(Debug, Serialize)]
struct RunJson<'a> {
    version: u32,
    /// Version of the kit.
    kit: &'static str,
    submissions: Vec<SubmissionJson<'a>>,
}

#[derive(Debug, Serialize)]
struct SubmissionJson<'a> {
    name: &'a str,
    handshake: &'a str,
    seed: u64,
    seconds: f64,
    earned: u32,
    possible: u32,
    published: u32,
    protections: &'a [String],
    fingerprint: &'a Fingerprint,
    #[serde(skip_serializing_if = "<[Remark]>::is_empty")]
    remarks: &'a [Remark],
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    checks: Vec<CheckJson<'a>>,
}

#[derive(Debug, Serialize)]
struct CheckJson<'a> {
    id: &'a str,
    points: u32,
    about: &'a str,
    rule: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    during: Vec<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'a str,
    seconds: f64,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    timeline: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    output: &'a [String],
    command: &'a str,
}

/// Returns the reports as a JSON document.
pub(crate) fn text(reports: &[Report]) -> serde_json::Result<String> {
    let submissions = reports.iter().map(submission).collect();
    serde_json::to_string_pretty(&RunJson {
        version: VERSION,
        kit: env!("CARGO_PKG_VERSION"),
        submissions,
    })
}

fn submission(report: &Report) -> SubmissionJson<'_> {
    let score = report.score(None);
    SubmissionJson {
        name: &report.name,
        handshake: report.dialect.name(),
        seed: report.seed,
        seconds: rounded(report.took.as_secs_f64()),
        earned: score.earned,
        possible: score.possible,
        published: score.published,
        protections: &report.protections,
        fingerprint: &report.fingerprint,
        remarks: &report.remarks,
        problem: report.problem.as_deref(),
        checks: report.rows.iter().map(check).collect(),
    }
}

fn check(row: &Row) -> CheckJson<'_> {
    let (outcome, expected, actual, during) = match &row.outcome {
        Outcome::Passed => ("passed", None, None, Vec::new()),
        Outcome::Failed { expected, actual, during } => (
            "failed",
            Some(expected.as_str()),
            Some(actual.as_str()),
            during.iter().map(String::as_str).collect(),
        ),
        Outcome::Skipped(_) => ("skipped", None, None, Vec::new()),
        Outcome::NotGraded(_) => ("not-graded", None, None, Vec::new()),
        Outcome::Trouble(_) => ("trouble", None, None, Vec::new()),
    };
    CheckJson {
        id: &row.check.id,
        points: row.check.points,
        about: row.check.about,
        rule: row.check.rule,
        outcome,
        expected,
        actual,
        during,
        why: row.outcome.why(),
        seconds: rounded(row.took.as_secs_f64()),
        attempts: row.attempts,
        cause: row.cause.as_deref(),
        timeline: &row.timeline,
        notes: &row.notes,
        output: &row.stderr,
        command: &row.command,
    }
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
