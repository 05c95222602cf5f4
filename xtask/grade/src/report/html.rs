//! Writes an HTML page for a class: a table of submissions and checks in one file, without scripts.
//! Each cell links to the details of a check. The fragment of the address selects the details that
//! are shown, so that one can link to a failure.

use std::fmt::Write as _;

use crate::check::Check;
use crate::outcome::{Outcome, Report, Row};

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886;--ok:#0a7d36;--bad:#c02020;--dim:#777}
*{box-sizing:border-box}
body{font:16px/1.45 system-ui,sans-serif;margin:1rem auto;max-width:80rem;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin:2rem 0 .3rem}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:.4rem}
table{border-collapse:collapse;font-size:.85rem}
th,td{border-bottom:1px solid var(--line);padding:0;text-align:center;white-space:nowrap}
thead th{vertical-align:bottom;padding:.3rem .1rem}
thead span{writing-mode:vertical-rl;transform:rotate(180deg);font-weight:400}
tbody th,.score{text-align:left;padding:.2rem .6rem}
tbody th{position:sticky;left:0;background:Canvas;z-index:1}
td a{display:block;min-width:1.9rem;padding:.35rem .2rem;text-decoration:none;color:inherit}
td a:hover,td a:focus{outline:2px solid}
.passed{color:var(--ok)}.failed{color:#fff;background:var(--bad);font-weight:700}
.problem{text-align:left;padding:.2rem .6rem}
.skipped,.not-graded{color:var(--dim)}.trouble{font-weight:700;background:#fc08}
section{display:none;border:2px solid var(--line);border-radius:.4rem;padding:.2rem 1rem 1rem;margin:1rem 0}
section:target{display:block}
dl{display:grid;grid-template-columns:minmax(5rem,auto) 1fr;gap:.4rem 1rem;margin:.6rem 0}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font:.85rem/1.4 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere;margin:0}
@media(max-width:40rem){body{padding:0 .5rem}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}tbody th{max-width:8rem;overflow:hidden;text-overflow:ellipsis}}
";

/// Returns the page.
pub(crate) fn text(reports: &[Report]) -> String {
    let mut checks: Vec<&Check> = Vec::new();
    for check in crate::checks::all() {
        if reports.iter().any(|report| report.rows.iter().any(|row| row.check.id == check.id)) {
            checks.push(check);
        }
    }
    let mut page =
        String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    let _ = writeln!(
        page,
        "<title>Accio: {} graded</title>\n<style>{STYLE}</style></head><body>",
        count(reports)
    );
    let _ = writeln!(page, "<h1>Accio: {} graded</h1>", count(reports));
    page.push_str(
        "<p>✓ passed · ✗ failed · – not graded or skipped · ! error in the grader. \
         Click on a cell for the expected and actual behaviour and the command that repeats the check.</p>\n",
    );
    page.push_str("<div class=\"scroll\"><table><thead><tr><th>submission</th><th>points</th>");
    for check in &checks {
        let _ =
            write!(page, "<th title=\"{}\"><span>{}</span></th>", escaped(check.about), check.id);
    }
    page.push_str("</tr></thead><tbody>\n");
    for (number, report) in reports.iter().enumerate() {
        let score = report.score(None);
        let _ = write!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"score\">{} of {}</td>",
            escaped(&named(report)),
            score.earned,
            score.possible
        );
        if let Some(problem) = &report.problem {
            let _ = write!(
                page,
                "<td class=\"problem\" colspan=\"{}\">nothing to grade: {}</td>",
                checks.len().max(1),
                escaped(problem)
            );
        }
        for check in checks.iter().filter(|_| report.problem.is_none()) {
            match report.rows.iter().find(|row| row.check.id == check.id) {
                Some(row) => {
                    let (class, sign, word) = sign(&row.outcome);
                    let _ = write!(
                        page,
                        "<td class=\"{class}\"><a href=\"#{0}\" title=\"{1}: {word}\" \
                         aria-label=\"{2}, {1}: {word}\">{sign}</a></td>",
                        anchor(number, row),
                        row.check.id,
                        escaped(&report.name),
                    );
                }
                None => page.push_str("<td></td>"),
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
    for (number, report) in reports.iter().enumerate() {
        for row in &report.rows {
            detail(&mut page, number, report, row);
        }
    }
    page.push_str("</body></html>\n");
    page
}

/// Appends the details of one check of one submission.
fn detail(page: &mut String, number: usize, report: &Report, row: &Row) {
    let (_, sign, word) = sign(&row.outcome);
    let _ = write!(
        page,
        "<section id=\"{}\" tabindex=\"-1\"><h2>{sign} {}: {}, {word}</h2><dl>",
        anchor(number, row),
        escaped(&named(report)),
        row.check.id
    );
    let mut entry = |name: &str, text: &str| {
        if !text.is_empty() {
            let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(text));
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
    entry("why", row.outcome.why());
    entry("notes", &row.notes.join("; "));
    entry("time", &format!("{:.1} s, attempt {}", row.took.as_secs_f64(), row.attempts));
    if !row.stderr.is_empty() {
        let _ =
            write!(page, "<dt>output</dt><dd><pre>{}</pre></dd>", escaped(&row.stderr.join("\n")));
    }
    let _ = write!(page, "<dt>again</dt><dd><code>{}</code></dd>", escaped(&row.command));
    page.push_str("</dl><a href=\"#\">close</a></section>\n");
}

fn count(reports: &[Report]) -> String {
    match reports.len() {
        1 => "1 submission".to_owned(),
        count => format!("{count} submissions"),
    }
}

fn named(report: &Report) -> String {
    format!("{} ({})", report.name, report.dialect.name())
}

fn anchor(number: usize, row: &Row) -> String {
    format!("s{number}-{}", row.check.id.replace('/', "-"))
}

/// Returns the class of a cell, its sign and its word: colour alone is not enough.
fn sign(outcome: &Outcome) -> (&'static str, &'static str, &'static str) {
    match outcome {
        Outcome::Passed => ("passed", "✓", "passed"),
        Outcome::Failed { .. } => ("failed", "✗", "failed"),
        Outcome::Skipped(_) => ("skipped", "–", "skipped"),
        Outcome::NotGraded(_) => ("not-graded", "–", "not graded here"),
        Outcome::Trouble(_) => ("trouble", "!", "error in the grader"),
    }
}

fn escaped(text: &str) -> String {
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
