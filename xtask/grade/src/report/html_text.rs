//! Texts of the HTML page.

use crate::outcome::{Outcome, Report, Row};

/// Returns the name of a submission with its dialect.
pub(super) fn named(report: &Report) -> String {
    format!("{} ({})", report.name, report.dialect.name())
}

/// Returns the id of the details of a check.
pub(super) fn anchor(number: usize, row: &Row) -> String {
    format!("s{number}-{}", row.check.id.replace('/', "-"))
}

/// Returns the class of a cell, its sign and its word: colour alone is not enough.
pub(super) fn sign(outcome: &Outcome) -> (&'static str, &'static str, &'static str) {
    match outcome {
        Outcome::Passed => ("passed", "✓", "passed"),
        Outcome::Failed { .. } => ("failed", "✗", "failed"),
        Outcome::Skipped(_) => ("skipped", "–", "skipped"),
        Outcome::NotGraded(_) => ("not-graded", "–", "not graded here"),
        Outcome::Trouble(_) => ("trouble", "!", "error in the grader"),
    }
}

/// Escapes a text for HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if accio_cli::is_unprintable(c) && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
