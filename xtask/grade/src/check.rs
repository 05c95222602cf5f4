//! Checks: the rows of the courses' grading tables, and further rules of their documents.

use super::trial::Trial;
use accio_harness::jobs::Load;
use accio_harness::peer::Dialect;
use accio_harness::subject::Program;
use accio_harness::verdict::Verdict;

/// A requirement that a submission must meet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Check {
    /// The program to check.
    pub(crate) program: Program,
    /// `program/number` for a graded check, `program/word` for one without points.
    pub(crate) id: String,
    /// Its points; 0 if it is not graded.
    pub(crate) points: u32,
    /// The expected behaviour, in one line.
    pub(crate) about: &'static str,
    /// The courses' rule, in our own words.
    pub(crate) rule: &'static str,
    /// The dialects that it applies to.
    pub(crate) dialects: &'static [Dialect],
    /// The load it puts on the machine.
    pub(crate) load: Load,
    /// Whether it needs the submitted client in addition to the checked program.
    pub(crate) with_client: bool,
    /// The implementation; `None` if the kit cannot check it.
    pub(crate) run: Option<fn(&Trial<'_>) -> Verdict>,
}

/// The dialects with a greeting.
pub(crate) const GREETED: &[Dialect] = &[Dialect::Accio, Dialect::Confirm];
/// The dialect with confirmations.
pub(crate) const CONFIRMED: &[Dialect] = &[Dialect::Confirm];

impl Check {
    /// Creates a check that applies to all dialects and has no points and no implementation; the
    /// methods below change that.
    pub(crate) fn new(
        program: Program,
        name: &str,
        about: &'static str,
        rule: &'static str,
    ) -> Check {
        Check {
            program,
            id: format!("{}/{name}", program.name()),
            points: 0,
            about,
            rule,
            dialects: &Dialect::ALL,
            load: Load::Works,
            with_client: false,
            run: None,
        }
    }

    /// Sets its points.
    pub(crate) fn worth(self, points: u32) -> Check {
        Check { points, ..self }
    }

    /// Returns the same check with other points.
    pub(crate) fn with_points(&self, points: u32) -> Check {
        let Check { program, about, rule, dialects, load, with_client, run, .. } = *self;
        Check {
            program,
            id: self.id.clone(),
            points,
            about,
            rule,
            dialects,
            load,
            with_client,
            run,
        }
    }

    /// Restricts it to these dialects.
    pub(crate) fn in_dialects(self, dialects: &'static [Dialect]) -> Check {
        Check { dialects, ..self }
    }

    /// Marks it as mostly waiting, so that more of them run at once.
    pub(crate) fn waits(self) -> Check {
        Check { load: Load::Waits, ..self }
    }

    /// Marks it as transferring data over a slow network, so that more of them run at once.
    pub(crate) fn transfers(self) -> Check {
        Check { load: Load::Transfers, ..self }
    }

    /// Marks it as needing the submitted client, too.
    pub(crate) fn with_client(self) -> Check {
        Check { with_client: true, ..self }
    }

    /// Sets its implementation.
    pub(crate) fn run(self, run: fn(&Trial<'_>) -> Verdict) -> Check {
        Check { run: Some(run), ..self }
    }

    /// Returns its number, if the courses grade it.
    pub(crate) fn number(&self) -> Option<u32> {
        self.id.rsplit('/').next()?.parse().ok()
    }
}
