//! Writes an HTML page for a class in one file: a table of submissions and checks that can be sorted
//! and filtered, the checks that most submissions failed, and a page to print for each student. The
//! fragment of the address selects the details that are shown, so that one can link to a failure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::html_details::{article, detail};
use super::html_text::{anchor, escaped, named, sign};
use crate::check::Check;
use crate::outcome::{Outcome, Report, first_line};
use accio_harness::subject::Program;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Number of checks in the overview.
const MOST: usize = 10;

/// Returns the page.
pub(crate) fn text(reports: &[Report]) -> String {
    let has = |check: &&Check| {
        reports.iter().any(|report| report.rows.iter().any(|row| row.check.id == check.id))
    };
    // The points come from the rubric of the run.
    let points = |check: &Check| {
        let mut rows = reports.iter().flat_map(|report| &report.rows);
        rows.find(|row| row.check.id == check.id).map_or(0, |row| row.check.points)
    };
    let mut checks: Vec<(&Check, u32)> =
        crate::checks::all().filter(has).map(|check| (check, points(check))).collect();
    // Those without points stand apart.
    checks.sort_by_key(|(_, points)| *points == 0);
    let title = format!("Accio: {} graded", count(reports));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style></head><body>\n\
         <header><h1>{title}</h1>\n\
         <p>✓ passed · ✗ failed (white on red: with points) · – not graded or skipped · ! error in \
         the grader · ² second attempt. Select a cell for details, a name for the page of the \
         student.</p></header>\n<main>\n"
    );
    filters(&mut page, reports, &checks);
    table(&mut page, reports, &checks);
    overview(&mut page, reports, &checks);
    for (number, report) in reports.iter().enumerate() {
        article(&mut page, number, report);
        for row in &report.rows {
            detail(&mut page, number, report, row);
        }
    }
    let _ = write!(page, "</main>\n<script>{SCRIPT}</script></body></html>\n");
    page
}

fn filters(page: &mut String, reports: &[Report], checks: &[(&Check, u32)]) {
    page.push_str(
        "<form class=\"screen\" aria-label=\"Filters\"><label>Submission \
         <input id=\"text\" type=\"search\" autocomplete=\"off\"></label>",
    );
    let rows = || reports.iter().flat_map(|report| &report.rows);
    let failed = checks
        .iter()
        .filter(|(check, _)| rows().any(|row| row.check.id == check.id && is_failed(&row.outcome)));
    let failed: Vec<(String, String)> = failed
        .map(|(check, _)| (check.id.clone(), format!("{}: {}", check.id, check.about)))
        .collect();
    select(page, "check", "Failed check", &failed);
    let causes: BTreeSet<&str> = rows().filter_map(|row| row.cause.as_deref()).collect();
    let causes: Vec<(String, String)> =
        causes.into_iter().map(|cause| (short(cause), short(cause))).collect();
    select(page, "cause", "Probable cause", &causes);
    page.push_str("<p role=\"status\"></p></form>\n");
}

fn select(page: &mut String, id: &str, label: &str, values: &[(String, String)]) {
    let _ = write!(page, "<label>{label} <select id=\"{id}\"><option value=\"\">any</option>");
    for (value, text) in values {
        let _ = write!(page, "<option value=\"{}\">{}</option>", escaped(value), escaped(text));
    }
    page.push_str("</select></label>");
}

fn table(page: &mut String, reports: &[Report], checks: &[(&Check, u32)]) {
    page.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Results\">\
         <table class=\"class\"><caption>Points and checks of each submission</caption><thead><tr>",
    );
    for name in ["Submission", "Points", "client", "server-s", "server", "Fix first"] {
        let _ = write!(page, "<th scope=\"col\"><button type=\"button\">{name}</button></th>");
    }
    let first_free = checks.iter().find(|(_, points)| *points == 0).map(|(check, _)| &check.id);
    for (check, points) in checks {
        let start = if Some(&check.id) == first_free { " class=\"free-start\"" } else { "" };
        let _ = write!(
            page,
            "<th scope=\"col\"{start}><span class=\"turned\" title=\"{}\">{}{}</span></th>",
            escaped(check.about),
            check.id,
            if *points > 0 { format!(" ({points})") } else { String::new() }
        );
    }
    page.push_str("</tr></thead><tbody>\n");
    for (number, report) in reports.iter().enumerate() {
        table_row(page, number, report, checks, first_free);
    }
    totals(page, reports, checks, first_free);
    page.push_str("</table></div>\n");
}

fn table_row(
    page: &mut String,
    number: usize,
    report: &Report,
    checks: &[(&Check, u32)],
    first_free: Option<&String>,
) {
    let failed = report.rows.iter().filter(|row| is_failed(&row.outcome));
    let failed: Vec<&str> = failed.map(|row| row.check.id.as_str()).collect();
    let causes: BTreeSet<String> =
        report.rows.iter().filter_map(|row| row.cause.as_deref()).map(short).collect();
    let causes: Vec<String> = causes.into_iter().collect();
    let _ = write!(
        page,
        "<tr data-failed=\"{}\" data-causes=\"{}\"><th scope=\"row\" data-key=\"{name}\">\
         <a href=\"#student-{number}\">{name}</a></th>",
        failed.join("|"),
        escaped(&causes.join("|")),
        name = escaped(&named(report)),
    );
    for program in [None, Some(Program::Client), Some(Program::ServerS), Some(Program::Server)] {
        let score = report.score(program);
        let text = match score.published {
            0 => "–".to_owned(),
            _ => format!("{} of {}", score.earned, score.possible),
        };
        let _ = write!(page, "<td class=\"points\" data-key=\"{}\">{text}</td>", score.earned);
    }
    if let Some(problem) = &report.problem {
        let _ = writeln!(
            page,
            "<td class=\"text\" colspan=\"{}\">nothing to grade: {}</td></tr>",
            checks.len() + 1,
            escaped(first_line(problem))
        );
        return;
    }
    match report.first_to_fix() {
        Some(row) => {
            let text = row.cause.as_deref().map_or_else(|| row.check.about.to_owned(), short);
            let _ = write!(
                page,
                "<td class=\"text\" data-key=\"{0}\"><a href=\"#{1}\">{0}: {2}</a></td>",
                row.check.id,
                anchor(number, row),
                escaped(&text)
            );
        }
        None => page.push_str("<td class=\"text\" data-key=\"\">–</td>"),
    }
    for (check, _) in checks {
        let start = if Some(&check.id) == first_free { " free-start" } else { "" };
        let Some(row) = report.rows.iter().find(|row| row.check.id == check.id) else {
            let _ = write!(page, "<td class=\"{}\"></td>", start.trim_start());
            continue;
        };
        let (class, sign, word) = sign(&row.outcome);
        let free = if row.check.points == 0 { " free" } else { "" };
        let again = if row.attempts > 1 { " again" } else { "" };
        let _ = write!(
            page,
            "<td class=\"{class}{free}{again}{start}\"><a href=\"#{0}\" title=\"{1}: {word}\" \
             aria-label=\"{2}, {1}: {word}\">{sign}</a></td>",
            anchor(number, row),
            row.check.id,
            escaped(&report.name),
        );
    }
    page.push_str("</tr>\n");
}

/// Appends a row with the share of submissions that passed each check.
fn totals(page: &mut String, reports: &[Report], checks: &[(&Check, u32)], free: Option<&String>) {
    page.push_str("</tbody><tfoot><tr><th scope=\"row\" class=\"text\">Passed</th>");
    page.push_str("<td></td><td></td><td></td><td></td><td></td>");
    for (check, _) in checks {
        let rows =
            || reports.iter().flat_map(|one| &one.rows).filter(|row| row.check.id == check.id);
        let passed = rows().filter(|row| row.outcome == Outcome::Passed).count();
        let tried = passed + rows().filter(|row| is_failed(&row.outcome)).count();
        let start = if Some(&check.id) == free { " class=\"free-start\"" } else { "" };
        let text = if tried > 0 { format!("{passed}/{tried}") } else { String::new() };
        let _ = write!(page, "<td{start}>{text}</td>");
    }
    page.push_str("</tr></tfoot>");
}

/// Appends the checks that most submissions failed.
fn overview(page: &mut String, reports: &[Report], checks: &[(&Check, u32)]) {
    let failed = |check: &Check| {
        let rows = reports.iter().flat_map(|report| &report.rows);
        rows.filter(|row| row.check.id == check.id && is_failed(&row.outcome)).count()
    };
    let mut lost: Vec<(usize, u32, &Check)> = checks
        .iter()
        .map(|(check, points)| (failed(check), *points, *check))
        .filter(|(count, _, _)| *count > 0)
        .collect();
    if lost.is_empty() {
        return;
    }
    lost.sort_by_key(|(count, points, _)| std::cmp::Reverse((*count, *points)));
    page.push_str(
        "<div class=\"screen\"><h2>Checks that most submissions failed</h2><div class=\"scroll\" \
         tabindex=\"0\" role=\"region\" aria-label=\"Checks that most submissions failed\"><table>\
         <thead><tr><th scope=\"col\" class=\"text\">Check</th><th scope=\"col\" class=\"text\">\
         Expected behaviour</th><th scope=\"col\" class=\"points\">Failed</th>\
         <th scope=\"col\" class=\"points\">Points lost</th></tr></thead><tbody>\n",
    );
    for (count, points, check) in lost.into_iter().take(MOST) {
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td><td class=\"points\">{count}\
             </td><td class=\"points\">{}</td></tr>",
            check.id,
            escaped(check.about),
            count as u64 * u64::from(points)
        );
    }
    page.push_str("</tbody></table></div></div>\n");
}

fn is_failed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { .. })
}

fn count(reports: &[Report]) -> String {
    match reports.len() {
        1 => "1 submission".to_owned(),
        count => format!("{count} submissions"),
    }
}

/// Returns the first sentence of a cause.
fn short(cause: &str) -> String {
    let end = cause.find([':', '.', ',']).unwrap_or(cause.len());
    cause[..end].to_owned()
}
