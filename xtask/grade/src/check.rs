//! The checks: the rows of the courses' tables, and further rules of their documents.

use super::trial::Trial;
use accio_harness::jobs::Load;
use accio_harness::peer::Dialect;
use accio_harness::subject::Program;
use accio_harness::verdict::Verdict;

/// One thing a submission must do.
#[derive(Debug)]
pub(crate) struct Check {
    /// The program it is about.
    pub(crate) program: Program,
    /// The program, a slash, and a number for what is graded or a word for what is not.
    pub(crate) id: String,
    /// Its points; 0 for a check that is not graded.
    pub(crate) points: u32,
    /// The expected behaviour, in a line.
    pub(crate) about: &'static str,
    /// The courses' rule, in our words.
    pub(crate) rule: &'static str,
    /// The dialects it means something in.
    pub(crate) dialects: &'static [Dialect],
    /// The load it puts on the machine.
    pub(crate) load: Load,
    /// Whether it needs the submitted client in addition to the program it is about.
    pub(crate) with_client: bool,
    /// How it is found out; nothing for what a program cannot show.
    pub(crate) run: Option<fn(&Trial<'_>) -> Verdict>,
}

/// Those with a greeting.
pub(crate) const GREETED: &[Dialect] = &[Dialect::Accio, Dialect::Confirm];
/// The one with confirmations.
pub(crate) const CONFIRMED: &[Dialect] = &[Dialect::Confirm];

impl Check {
    /// The check `name` of a program: in all dialects, worth nothing, and not to be tried, unless
    /// the methods below say otherwise.
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

    /// Is graded, with so many points.
    pub(crate) fn worth(self, points: u32) -> Check {
        Check { points, ..self }
    }

    /// Means something in these dialects only.
    pub(crate) fn in_dialects(self, dialects: &'static [Dialect]) -> Check {
        Check { dialects, ..self }
    }

    /// Waits more than it works.
    pub(crate) fn waits(self) -> Check {
        Check { load: Load::Waits, ..self }
    }

    /// Needs the submitted client, too.
    pub(crate) fn with_client(self) -> Check {
        Check { with_client: true, ..self }
    }

    /// Is found out like this.
    pub(crate) fn run(self, run: fn(&Trial<'_>) -> Verdict) -> Check {
        Check { run: Some(run), ..self }
    }

    /// Its number, where the courses grade it.
    pub(crate) fn number(&self) -> Option<u32> {
        self.id.rsplit('/').next()?.parse().ok()
    }
}
