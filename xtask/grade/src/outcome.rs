//! The results of single checks and of a submission.

use std::collections::BTreeSet;
use std::time::Duration;

use super::check::Check;
use accio_harness::peer::Dialect;
use accio_harness::subject::Program;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It held.
    Passed,
    /// It did not.
    Failed {
        /// The expected behaviour.
        expected: String,
        /// The actual behaviour.
        actual: String,
        /// Where, from the outside in.
        during: Vec<String>,
    },
    /// It cannot be shown with what is here; says why.
    Skipped(String),
    /// It is not for a program to show; says why.
    NotGraded(String),
    /// Something of the kit's failed, which says nothing about the submission.
    Trouble(String),
}

/// A check and what it came to.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The check.
    pub(crate) check: &'static Check,
    /// The result.
    pub(crate) outcome: Outcome,
    /// How long it took, the last time.
    pub(crate) took: Duration,
    /// How often it was run.
    pub(crate) attempts: u32,
    /// Notes for the report.
    pub(crate) notes: Vec<String>,
    /// The programs' output on stderr, if the check failed.
    pub(crate) said: Vec<String>,
    /// The command that repeats it.
    pub(crate) command: String,
}

/// The results of a submission.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) name: String,
    /// The dialect it was graded in.
    pub(crate) dialect: Dialect,
    /// The seed.
    pub(crate) seed: u64,
    /// All checks of its programs, in the order of the tables.
    pub(crate) rows: Vec<Row>,
    /// The wall time.
    pub(crate) took: Duration,
    /// Why there was nothing to grade, if there was nothing.
    pub(crate) problem: Option<String>,
}

/// Points of several checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Score {
    /// Points of those that passed.
    pub(crate) earned: u32,
    /// Points of those that passed or failed.
    pub(crate) possible: u32,
    /// Points of all.
    pub(crate) published: u32,
}

impl Outcome {
    /// One word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed { .. } => "FAILED",
            Outcome::Skipped(_) => "skipped",
            Outcome::NotGraded(_) => "not graded",
            Outcome::Trouble(_) => "TROUBLE",
        }
    }

    /// Why it was not run to an end, where that is so.
    pub(crate) fn why(&self) -> &str {
        match self {
            Outcome::Skipped(why) | Outcome::NotGraded(why) | Outcome::Trouble(why) => why,
            Outcome::Passed | Outcome::Failed { .. } => "",
        }
    }
}

impl Report {
    /// The points of `program`'s checks, or of all.
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

    /// The programs it has checks of.
    pub(crate) fn programs(&self) -> BTreeSet<Program> {
        self.rows.iter().map(|row| row.check.program).collect()
    }

    /// How many checks came to this.
    pub(crate) fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.rows.iter().filter(|row| which(&row.outcome)).count()
    }

    /// Whether anything failed, or nothing could be graded.
    pub(crate) fn has_failed(&self) -> bool {
        self.problem.is_some()
            || self.count(|outcome| matches!(outcome, Outcome::Failed { .. })) > 0
    }

    /// Whether the kit itself failed somewhere.
    pub(crate) fn is_troubled(&self) -> bool {
        self.count(|outcome| matches!(outcome, Outcome::Trouble(_))) > 0
    }
}
