//! Writes the result.json of Classroom 50 (format `classroom50/result/v1`).

use std::env;

use serde::Serialize;

use crate::outcome::{Outcome, Report, Row};

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct TestJson<'a> {
    test_name: String,
    passed: bool,
    score: u32,
    max_score: u32,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct ResultJson<'a> {
    schema: &'static str,
    classroom: String,
    assignment: String,
    assignment_type: String,
    owner: String,
    submission: String,
    commit: String,
    release: String,
    review: String,
    datetime: String,
    graded_at: String,
    score: u32,
    #[serde(rename = "max-score")]
    max_score: u32,
    tests: Vec<TestJson<'a>>,
}

/// Returns the result of a submission. Its identity comes from the environment variables that the
/// runner of Classroom 50 sets.
pub(crate) fn text(report: &Report) -> serde_json::Result<String> {
    let variable = |names: &[&str], default: &str| {
        let values = names.iter().filter_map(|name| env::var(name).ok());
        values.into_iter().find(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let commit = variable(&["COMMIT_URL"], "unknown");
    let score = report.score(None);
    let result = ResultJson {
        schema: "classroom50/result/v1",
        classroom: variable(&["CLASSROOM"], "unknown"),
        assignment: variable(&["ASSIGNMENT"], "unknown"),
        assignment_type: variable(&["ASSIGNMENT_TYPE"], "individual"),
        owner: variable(&["OWNER", "USERNAME"], &report.name),
        submission: variable(&["SUBMISSION_TAG"], "submit/unknown"),
        release: variable(&["RELEASE_URL"], "unknown"),
        review: variable(&["REVIEW_URL"], &commit),
        commit,
        datetime: now.clone(),
        graded_at: now,
        score: score.earned,
        max_score: score.possible,
        tests: report.rows.iter().filter_map(test).collect(),
    };
    serde_json::to_string_pretty(&result)
}

/// Returns the test of a check that passed or failed.
fn test(row: &Row) -> Option<TestJson<'_>> {
    let (passed, message) = match &row.outcome {
        Outcome::Passed => (true, ""),
        Outcome::Failed { actual, .. } => (false, actual.as_str()),
        _ => return None,
    };
    let points = row.check.points;
    Some(TestJson {
        test_name: format!("{}: {}", row.check.id, row.check.about),
        passed,
        score: if passed { points } else { 0 },
        max_score: points,
        message,
    })
}
