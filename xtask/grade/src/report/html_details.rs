//! The details of the page: one section for each check of each submission, and a page to print for
//! each student.

use std::fmt::Write as _;

use super::html_text::{anchor, escaped, named, sign};
use super::table;
use crate::outcome::{Outcome, Report, Row};

/// Appends the details of one check of one submission.
pub(super) fn detail(page: &mut String, number: usize, report: &Report, row: &Row) {
    let (_, sign, word) = sign(&row.outcome);
    let _ = write!(
        page,
        "<section id=\"{}\" tabindex=\"-1\"><h2>{sign} {}: {}, {word}</h2>",
        anchor(number, row),
        escaped(&named(report)),
        row.check.id
    );
    description(page, row);
    page.push_str("<a href=\"#\">close</a></section>\n");
}

/// Appends the page of a student: the points, what to fix first, and all failures.
pub(super) fn article(page: &mut String, number: usize, report: &Report) {
    let total = report.score(None);
    let _ = write!(
        page,
        "<article id=\"student-{number}\" tabindex=\"-1\"><h2>{}: {} of {} points</h2><ul>",
        escaped(&named(report)),
        total.earned,
        total.possible
    );
    if let Some(problem) = &report.problem {
        let _ = write!(page, "<li class=\"output\">nothing to grade: {}</li>", escaped(problem));
    }
    for program in report.programs() {
        let _ = write!(page, "<li>{}: {}</li>", program.name(), table::points(report, program));
    }
    page.push_str("</ul>");
    if let Some(row) = report.first_to_fix() {
        let _ = write!(
            page,
            "<p><strong>Fix first:</strong> {}: {}</p>",
            row.check.id,
            escaped(row.cause.as_deref().unwrap_or(row.check.about))
        );
    }
    if !report.remarks.is_empty() {
        page.push_str("<h3>Remarks on the source code</h3><ul>");
        for remark in &report.remarks {
            let _ = write!(page, "<li><code>{}</code></li>", escaped(&remark.to_string()));
        }
        page.push_str("</ul>");
    }
    for row in report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed { .. })) {
        let _ = write!(page, "<h3>✗ {}</h3>", row.check.id);
        description(page, row);
    }
    let _ = writeln!(
        page,
        "<p>Protections: {}.</p><p class=\"screen\"><button type=\"button\" class=\"print\" hidden>\
         Print this page</button> <a href=\"#\">close</a></p></article>",
        escaped(&report.protections.join("; "))
    );
}

/// Appends the list of what is known about a check.
fn description(page: &mut String, row: &Row) {
    page.push_str("<dl>");
    let mut entry = |name: &str, text: &str| {
        if !text.is_empty() {
            let class = if name == "probable cause" { " class=\"cause\"" } else { "" };
            let _ = write!(page, "<dt>{name}</dt><dd{class}>{}</dd>", escaped(text));
        }
    };
    entry("check", row.check.about);
    let points = match row.check.points {
        0 => "none".to_owned(),
        points => points.to_string(),
    };
    entry("points", &points);
    entry("rule", row.check.rule);
    if let Outcome::Failed { expected, actual, during } = &row.outcome {
        entry("during", &during.join(", "));
        entry("expected", expected);
        entry("actual", actual);
    }
    entry("probable cause", row.cause.as_deref().unwrap_or_default());
    entry("why", row.outcome.why());
    entry("notes", &row.notes.join("; "));
    entry("time", &format!("{:.1} s, attempt {}", row.took.as_secs_f64(), row.attempts));
    for (name, lines) in [("timeline", &row.timeline), ("output", &row.stderr)] {
        if !lines.is_empty() {
            let _ =
                write!(page, "<dt>{name}</dt><dd><pre>{}</pre></dd>", escaped(&lines.join("\n")));
        }
    }
    let _ = write!(page, "<dt>again</dt><dd><code>{}</code></dd></dl>", escaped(&row.command));
}
