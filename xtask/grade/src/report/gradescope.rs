//! Writes Gradescope's results.json after every check, so that a run that is killed still reports
//! the results so far.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::write;
use crate::check::Check;
use crate::outcome::{Outcome, Report, Row};

/// Minimum interval between two versions of the file, except for the last one.
const PAUSE: Duration = Duration::from_millis(300);

/// The visibility of checks, by id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visibility {
    /// Only instructors see these.
    pub(crate) hidden: Vec<String>,
    /// Students see these after the due date.
    pub(crate) after_due: Vec<String>,
}

impl Visibility {
    fn of(&self, id: &str) -> &'static str {
        let has = |ids: &[String]| ids.iter().any(|one| one == id);
        match (has(&self.hidden), has(&self.after_due)) {
            (true, _) => "hidden",
            (false, true) => "after_due_date",
            (false, false) => "visible",
        }
    }
}

/// The results so far.
#[derive(Debug)]
pub(crate) struct Results {
    path: PathBuf,
    /// The option that selects the submission, with its path on this machine.
    subject_option: Option<String>,
    visibility: Visibility,
    began: Instant,
    written: Option<Instant>,
    /// The index of every check, in the order of the grading tables.
    places: BTreeMap<&'static str, usize>,
    tests: BTreeMap<usize, TestJson>,
}

#[derive(Debug, Serialize)]
struct ResultsJson<'a> {
    score: f64,
    execution_time: u64,
    output: String,
    visibility: &'static str,
    stdout_visibility: &'static str,
    tests: Vec<&'a TestJson>,
}

#[derive(Debug, Serialize)]
struct TestJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_score: Option<f64>,
    /// Without a status, a test without points would count as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    name: String,
    number: &'static str,
    output: String,
    visibility: &'static str,
}

/// Writes the results of a submission in which there is nothing to grade, with the reason.
pub(crate) fn write_nothing(path: &Path, why: &str) -> io::Result<()> {
    let document = ResultsJson {
        score: 0.0,
        execution_time: 0,
        output: format!("nothing to grade: {why}"),
        visibility: "visible",
        stdout_visibility: "hidden",
        tests: Vec::new(),
    };
    write(path, serde_json::to_string_pretty(&document)?)
}

impl Results {
    /// Creates results for these `checks`, to be written to `path`. `subject_option` is the option
    /// that selects the submission.
    pub(crate) fn new(
        path: &Path,
        checks: &[&'static Check],
        subject_option: Option<&str>,
        visibility: Visibility,
    ) -> Results {
        let places =
            checks.iter().enumerate().map(|(place, check)| (check.id.as_str(), place)).collect();
        Results {
            path: path.to_owned(),
            subject_option: subject_option.map(str::to_owned),
            visibility,
            began: Instant::now(),
            written: None,
            places,
            tests: BTreeMap::new(),
        }
    }

    /// Adds the result of a check; replaces an earlier one.
    pub(crate) fn add(&mut self, row: &Row) -> io::Result<()> {
        let place = self.places.get(row.check.id.as_str()).copied().unwrap_or(usize::MAX);
        let visibility = self.visibility.of(&row.check.id);
        self.tests.insert(place, test(row, self.subject_option.as_deref(), visibility));
        match self.written {
            Some(written) if written.elapsed() < PAUSE => Ok(()),
            _ => self.write(None),
        }
    }

    /// Writes the final version.
    pub(crate) fn finish(&mut self, report: &Report) -> io::Result<()> {
        self.write(Some(report))
    }

    fn write(&mut self, complete: Option<&Report>) -> io::Result<()> {
        self.written = Some(Instant::now());
        let (done, all) = (self.tests.len(), self.places.len());
        let output = match complete {
            Some(report) => {
                let remarks: String =
                    report.remarks.iter().map(|remark| format!("remark: {remark}\n")).collect();
                format!(
                    "{done} checks. A check that is not graded here has no points.\n{remarks}\
                     protections: {}",
                    report.protections.join("; ")
                )
            }
            None => format!("{done} of {all} checks so far: the run is not complete."),
        };
        let document = ResultsJson {
            // The sum of no numbers is -0.0.
            score: self
                .tests
                .values()
                .filter_map(|test| test.score)
                .fold(0.0, |sum, one| sum + one),
            execution_time: self.began.elapsed().as_secs(),
            output,
            visibility: "visible",
            stdout_visibility: "hidden",
            tests: self.tests.values().collect(),
        };
        write(&self.path, serde_json::to_string_pretty(&document)?)
    }
}

fn test(row: &Row, subject_option: Option<&str>, visibility: &'static str) -> TestJson {
    let points = f64::from(row.check.points);
    let graded = row.check.points > 0;
    let (score, status, text) = match &row.outcome {
        Outcome::Passed => (Some(points), Some("passed"), String::new()),
        Outcome::Failed { expected, actual, during } => {
            let mut text = String::new();
            for place in during {
                text.push_str(&format!("during: {place}\n"));
            }
            // The path on this machine means nothing to the student.
            let command = match subject_option {
                Some(option) => row.command.replacen(option, "YOUR-DIRECTORY", 1),
                None => row.command.clone(),
            };
            if let Some(cause) = &row.cause {
                text.push_str(&format!("probable cause: {cause}\n"));
            }
            text.push_str(&format!(
                "expected: {expected}\nactual: {actual}\nrule: {}\n\nat home: {command}\n",
                row.check.rule
            ));
            (Some(0.0), Some("failed"), text)
        }
        Outcome::Trouble(why) => (
            None,
            None,
            format!("error in the grader, not in your program; run the check again: {why}"),
        ),
        Outcome::Skipped(why) | Outcome::NotGraded(why) => {
            (None, None, format!("not graded here: {why}"))
        }
    };
    let notes: String = row.notes.iter().map(|note| format!("({note})\n")).collect();
    TestJson {
        score: score.filter(|_| graded),
        max_score: score.filter(|_| graded).map(|_| points),
        status,
        name: row.check.about.to_owned(),
        number: &row.check.id,
        output: text + &notes,
        visibility,
    }
}
