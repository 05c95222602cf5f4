//! Reads the JSON reports of an earlier run, so that only the rest has to be graded.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::check::Check;
use crate::grade::{Settings, Submission};
use crate::outcome::{Outcome, Report, Row};
use crate::source_checks::Remark;

/// What was graded: two runs with the same values have the same results, except for chance.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// A hash of the checks, their points, the dialect, the options and the version of the kit.
    pub(crate) selection: String,
    /// A hash of the names and contents of the submission's files.
    pub(crate) content: String,
}

/// Which earlier results to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// None.
    Nothing,
    /// All complete results of the same checks.
    Complete,
    /// Those of the same checks and the same files.
    Unchanged,
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

impl Fingerprint {
    /// Returns the fingerprint of a submission.
    pub(crate) fn of(
        submission: &Submission,
        chosen: &[&'static Check],
        settings: &Settings,
    ) -> Fingerprint {
        let mut selection = Sha256::new();
        let mut add = |text: &str| selection.update(format!("{}:{text}", text.len()));
        add(env!("CARGO_PKG_VERSION"));
        add(submission.dialect.name());
        add(&settings.repeat);
        for check in chosen {
            add(&format!("{} {}", check.id, check.points));
        }
        let mut content = Sha256::new();
        if let Some(root) = &submission.directory {
            let mut files = Vec::new();
            list(root, &mut files);
            for path in files {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                content.update(format!("{}:{name}", name.len()));
                hash(&path, &mut content);
            }
        }
        Fingerprint { selection: hex(selection), content: hex(content) }
    }

    /// Whether a result with this fingerprint may be used for `now`.
    fn fits(&self, now: &Fingerprint, reuse: Reuse) -> bool {
        match reuse {
            Reuse::Nothing => false,
            Reuse::Complete => self.selection == now.selection,
            Reuse::Unchanged => self == now,
        }
    }
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
    let saved =
        run.submissions.into_iter().next().filter(|_| run.version == super::json::VERSION)?;
    if !saved.fingerprint.fits(now, reuse) {
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

/// Lists the files below `dir` in order, without those of version control.
fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.into_iter().filter(|entry| entry.file_name() != ".git") {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

fn hash(path: &Path, into: &mut Sha256) {
    let Ok(mut file) = fs::File::open(path) else { return };
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        into.update(&buffer[..count]);
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
