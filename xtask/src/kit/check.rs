//! The checks: what the courses grade, and what their documents ask for beside it.

use super::trial::Trial;
use crate::e2e::engine::Load;
use crate::e2e::peer::Dialect;
use crate::e2e::subject::Program;
use crate::e2e::verdict::Verdict;

/// One thing a submission must do.
#[derive(Debug)]
pub(crate) struct Check {
    /// The program, a slash, and a number for what is graded or a word for what is not.
    pub(crate) id: &'static str,
    /// What it is worth; nothing for what is not graded.
    pub(crate) points: u32,
    /// What must hold, in a line.
    pub(crate) about: &'static str,
    /// What the courses say, in our words.
    pub(crate) rule: &'static str,
    /// The dialects it means something in.
    pub(crate) dialects: &'static [Dialect],
    /// What it costs the machine.
    pub(crate) load: Load,
    /// Whether it needs the submitted client beside the program it is about.
    pub(crate) with_client: bool,
    /// How it is found out; nothing for what a program cannot show.
    pub(crate) run: Option<fn(&Trial<'_>) -> Verdict>,
}

/// All dialects.
pub(crate) const ANY: &[Dialect] = &Dialect::ALL;
/// Those with a greeting.
pub(crate) const GREETED: &[Dialect] = &[Dialect::Accio, Dialect::Confirm];
/// The one with confirmations.
pub(crate) const CONFIRMED: &[Dialect] = &[Dialect::Confirm];

impl Check {
    /// The program it is about.
    pub(crate) fn program(&self) -> Program {
        match self.id.split('/').next() {
            Some("client") => Program::Client,
            Some("server-s") => Program::ServerS,
            _ => Program::Server,
        }
    }

    /// Whether `text`, an id or a part of one, or of what it is about, means this check.
    pub(crate) fn is_meant_by(&self, text: &str) -> bool {
        let exact = super::checks::all().any(|check| check.id == text);
        if exact { self.id == text } else { self.id.contains(text) || self.about.contains(text) }
    }
}
