//! Gradescope's results.json, rewritten after every check, so that a run that is cut short
//! still reports what it had.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::write;
use crate::check::Check;
use crate::outcome::{Outcome, Row};

/// How often the file is written at the most, but for its last version.
const PAUSE: Duration = Duration::from_millis(300);

/// The document, as far as it is known.
#[derive(Debug)]
pub(crate) struct Results {
    path: PathBuf,
    /// The submission's path on this machine, which means nothing elsewhere.
    own: Option<String>,
    began: Instant,
    written: Option<Instant>,
    /// The place of every check, in the order of the tables.
    places: BTreeMap<&'static str, usize>,
    tests: BTreeMap<usize, Test>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    score: f64,
    execution_time: u64,
    output: String,
    visibility: &'static str,
    stdout_visibility: &'static str,
    tests: Vec<&'a Test>,
}

#[derive(Debug, Serialize)]
struct Test {
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_score: Option<f64>,
    /// Without it, a test that has no points would count as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    name: String,
    number: &'static str,
    output: String,
    visibility: &'static str,
}

/// Writes `path` for a submission in which there is nothing to grade, and says why.
pub(crate) fn write_nothing(path: &Path, why: &str) -> io::Result<()> {
    let document = Document {
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
    /// Will write `path`; `checks` are those that may come; `own` is the option that names the
    /// submission.
    pub(crate) fn new(path: &Path, checks: &[&'static Check], own: Option<&str>) -> Results {
        let places =
            checks.iter().enumerate().map(|(place, check)| (check.id.as_str(), place)).collect();
        Results {
            path: path.to_owned(),
            own: own.map(str::to_owned),
            began: Instant::now(),
            written: None,
            places,
            tests: BTreeMap::new(),
        }
    }

    /// Takes a check's outcome, over the one before if there is one.
    pub(crate) fn add(&mut self, row: &Row) -> io::Result<()> {
        let place = self.places.get(row.check.id.as_str()).copied().unwrap_or(usize::MAX);
        self.tests.insert(place, test(row, self.own.as_deref()));
        match self.written {
            Some(written) if written.elapsed() < PAUSE => Ok(()),
            _ => self.write(false),
        }
    }

    /// Writes the last version.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.write(true)
    }

    fn write(&mut self, complete: bool) -> io::Result<()> {
        self.written = Some(Instant::now());
        let (done, all) = (self.tests.len(), self.places.len());
        let output = match complete {
            true => format!("{done} checks. A check that is not graded here has no points here."),
            false => format!("{done} of {all} checks so far: the run did not come to its end."),
        };
        let document = Document {
            score: self.tests.values().filter_map(|test| test.score).sum(),
            execution_time: self.began.elapsed().as_secs(),
            output,
            visibility: "visible",
            stdout_visibility: "hidden",
            tests: self.tests.values().collect(),
        };
        write(&self.path, serde_json::to_string_pretty(&document)?)
    }
}

fn test(row: &Row, own: Option<&str>) -> Test {
    let points = f64::from(row.check.points);
    let graded = row.check.points > 0;
    let (score, status, text) = match &row.outcome {
        Outcome::Passed => (Some(points), Some("passed"), String::new()),
        Outcome::Failed { expected, actual, during } => {
            let mut text = String::new();
            for place in during {
                text.push_str(&format!("during: {place}\n"));
            }
            // The folder that has it here is not the one that has it at home.
            let command = match own {
                Some(own) => row.command.replacen(own, "--subject YOUR-FOLDER", 1),
                None => row.command.clone(),
            };
            text.push_str(&format!(
                "expected: {expected}\nactual: {actual}\nrule: {}\n\nat home: {command}\n",
                row.check.rule
            ));
            (Some(0.0), Some("failed"), text)
        }
        Outcome::Trouble(why) => {
            (None, None, format!("the grader's own trouble, not yours; to be run again: {why}"))
        }
        Outcome::Skipped(why) | Outcome::NotGraded(why) => {
            (None, None, format!("not graded here: {why}"))
        }
    };
    let notes: String = row.notes.iter().map(|note| format!("({note})\n")).collect();
    Test {
        score: score.filter(|_| graded),
        max_score: score.filter(|_| graded).map(|_| points),
        status,
        name: row.check.about.to_owned(),
        number: &row.check.id,
        output: text + &notes,
        visibility: "visible",
    }
}
