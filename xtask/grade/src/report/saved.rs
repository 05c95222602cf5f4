//! Reads the JSON reports of an earlier run, so that only the rest has to be graded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::json::VERSION;
use crate::check::Check;
use crate::fingerprint::Fingerprint;
use crate::outcome::{Outcome, Report, Row};
use crate::remark::Remark;
use crate::settings::Submission;

/// The earlier results to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// None.
    Nothing,
    /// All complete results of the same checks.
    Complete,
    /// Those of the same checks and the same files.
    Unchanged,
}

impl Reuse {
    /// Returns whether a result with the fingerprint `saved` may be used for `now`.
    fn allows(self, saved: &Fingerprint, now: &Fingerprint) -> bool {
        match self {
            Reuse::Nothing => false,
            Reuse::Complete => saved.selection == now.selection,
            Reuse::Unchanged => saved == now,
        }
    }
}

#[derive(Debug, Deserialize)]
struct SavedRun {
    version: u32,
    submissions: Vec<SavedSubmission>,
}

#[derive(Debug, Deserialize)]
struct SavedSubmission {
    seed: u64,
    seconds: f64,
    #[serde(default)]
    protections: Vec<String>,
    #[serde(default)]
    fingerprint: Fingerprint,
    #[serde(default)]
    remarks: Vec<Remark>,
    problem: Option<String>,
    checks: Vec<SavedCheck>,
}

#[derive(Debug, Deserialize)]
struct SavedCheck {
    id: String,
    outcome: String,
    #[serde(default)]
    expected: String,
    #[serde(default)]
    actual: String,
    #[serde(default)]
    during: Vec<String>,
    #[serde(default)]
    why: String,
    seconds: f64,
    attempts: u32,
    cause: Option<String>,
    #[serde(default)]
    timeline: Vec<String>,
    #[serde(default)]
    notes: Vec<String>,
    #[serde(default)]
    output: Vec<String>,
    command: String,
}

/// Returns the earlier report of a submission if it can be used.
pub(crate) fn read(
    path: &Path,
    submission: &Submission,
    chosen: &[&'static Check],
    now: &Fingerprint,
    reuse: Reuse,
) -> Option<Report> {
    if reuse == Reuse::Nothing {
        return None;
    }
    let run: SavedRun = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let saved = run.submissions.into_iter().next().filter(|_| run.version == VERSION)?;
    if !reuse.allows(&saved.fingerprint, now) {
        return None;
    }
    let rows: Option<Vec<Row>> = saved.checks.into_iter().map(|one| row(one, chosen)).collect();
    let report = Report {
        name: submission.name.clone(),
        dialect: submission.dialect,
        seed: saved.seed,
        rows: rows?,
        took: Duration::try_from_secs_f64(saved.seconds).ok()?,
        protections: saved.protections,
        fingerprint: saved.fingerprint,
        remarks: saved.remarks,
        problem: saved.problem,
    };
    (!report.is_troubled()).then_some(report)
}

fn row(saved: SavedCheck, chosen: &[&'static Check]) -> Option<Row> {
    let check = chosen.iter().copied().find(|check| check.id == saved.id)?;
    let outcome = match saved.outcome.as_str() {
        "passed" => Outcome::Passed,
        "failed" => {
            Outcome::Failed { expected: saved.expected, actual: saved.actual, during: saved.during }
        }
        "skipped" => Outcome::Skipped(saved.why),
        "not-graded" => Outcome::NotGraded(saved.why),
        // Errors in the grader are graded again.
        _ => return None,
    };
    Some(Row {
        check,
        outcome,
        took: Duration::try_from_secs_f64(saved.seconds).ok()?,
        attempts: saved.attempts,
        cause: saved.cause,
        timeline: saved.timeline,
        notes: saved.notes,
        stderr: saved.output,
        command: saved.command,
    })
}
