//! The results of checks and of submissions.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::Check;
use super::fingerprint::Fingerprint;
use super::remark::Remark;
use accio_harness::peer::Dialect;
use accio_harness::subject::Program;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The behaviour was as expected.
    Passed,
    /// The behaviour was different.
    Failed {
        /// The expected behaviour.
        expected: String,
        /// The actual behaviour.
        actual: String,
        /// The steps during which it failed, outermost first.
        during: Vec<String>,
    },
    /// It could not be run, for the given reason.
    Skipped(String),
    /// The kit cannot check it, for the given reason.
    NotGraded(String),
    /// The kit itself failed, so nothing is known about the submission.
    Trouble(String),
}

/// A check and its result.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) check: &'static Check,
    /// The result.
    pub(crate) outcome: Outcome,
    /// Duration of the last attempt.
    pub(crate) took: Duration,
    /// Number of attempts.
    pub(crate) attempts: u32,
    /// The probable cause of a failure.
    pub(crate) cause: Option<String>,
    /// The bytes of the connections of a failed check, a line for each event.
    pub(crate) timeline: Vec<String>,
    /// Notes for the report.
    pub(crate) notes: Vec<String>,
    /// The last lines that the programs printed to stderr, if the check failed.
    pub(crate) stderr: Vec<String>,
    /// The command that repeats the check.
    pub(crate) command: String,
}

/// The results of a submission.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) name: String,
    /// The dialect it was graded in.
    pub(crate) dialect: Dialect,
    /// The seed of contents and of the network emulator.
    pub(crate) seed: u64,
    /// The checks of its programs, in the order of the grading tables.
    pub(crate) rows: Vec<Row>,
    /// The total duration.
    pub(crate) took: Duration,
    /// The protections from its programs that were active.
    pub(crate) protections: Vec<String>,
    /// The graded programs.
    pub(crate) fingerprint: Fingerprint,
    /// Remarks on the source code and the repository.
    pub(crate) remarks: Vec<Remark>,
    /// The reason why there was nothing to grade, if so.
    pub(crate) problem: Option<String>,
}

/// Sums of points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Score {
    /// Points of passed checks.
    pub(crate) earned: u32,
    /// Points of passed and failed checks.
    pub(crate) possible: u32,
    /// Points of all checks.
    pub(crate) published: u32,
}

/// Returns the first line of the reason why there was nothing to grade; the others are the output of
/// a compiler.
pub(crate) fn first_line(problem: &str) -> &str {
    problem.lines().next().unwrap_or_default()
}

impl Outcome {
    /// Returns a word for the outcome.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed { .. } => "FAILED",
            Outcome::Skipped(_) => "skipped",
            Outcome::NotGraded(_) => "not graded",
            Outcome::Trouble(_) => "TROUBLE",
        }
    }

    /// Returns the reason why it neither passed nor failed, or an empty text.
    pub(crate) fn why(&self) -> &str {
        match self {
            Outcome::Skipped(why) | Outcome::NotGraded(why) | Outcome::Trouble(why) => why,
            Outcome::Passed | Outcome::Failed { .. } => "",
        }
    }
}

impl Report {
    /// Returns the points of `program`'s checks, or of all programs.
    pub(crate) fn score(&self, program: Option<Program>) -> Score {
        let mut score = Score::default();
        for row in &self.rows {
            if program.is_some_and(|program| row.check.program != program) {
                continue;
            }
            let points = row.check.points;
            score.published += points;
            match row.outcome {
                Outcome::Passed => {
                    score.earned += points;
                    score.possible += points;
                }
                Outcome::Failed { .. } => score.possible += points,
                _ => {}
            }
        }
        score
    }

    /// Returns the programs that it has checks of.
    pub(crate) fn programs(&self) -> BTreeSet<Program> {
        self.rows.iter().map(|row| row.check.program).collect()
    }

    /// Counts the checks with such an outcome.
    pub(crate) fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.rows.iter().filter(|row| which(&row.outcome)).count()
    }

    /// Returns the failed check to look at first: others often fail for the same reason, and checks
    /// with points and of the basics come first.
    pub(crate) fn first_to_fix(&self) -> Option<&Row> {
        let failed = self.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed { .. }));
        // The checks of a program go from the basics to long transfers.
        failed.min_by_key(|row| {
            (row.check.points == 0, row.check.run.is_none(), row.check.number(), row.check.program)
        })
    }

    /// Returns whether a check failed or there was nothing to grade.
    pub(crate) fn has_failed(&self) -> bool {
        self.problem.is_some()
            || self.count(|outcome| matches!(outcome, Outcome::Failed { .. })) > 0
    }

    /// Returns whether the kit itself failed in a check.
    pub(crate) fn is_troubled(&self) -> bool {
        self.count(|outcome| matches!(outcome, Outcome::Trouble(_))) > 0
    }
}
