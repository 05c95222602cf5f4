//! Writes the points of a class as CSV, for spreadsheets and for the grade books of Moodle and
//! Canvas.

use crate::outcome::{Outcome, Report, first_line};
use crate::roster::Roster;
use accio_harness::subject::Program;

/// The columns of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Columns {
    /// All results
    #[default]
    Full,
    /// The columns that Moodle imports: ID number, email address, points, feedback
    Moodle,
    /// The columns that Canvas imports, with a row for the possible points
    Canvas,
}

/// Returns the points of `reports`; `title` is the name of the assignment in a grade book.
pub(crate) fn text(
    reports: &[Report],
    roster: &Roster,
    columns: Columns,
    title: &str,
) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    match columns {
        Columns::Full => full(&mut writer, reports, roster)?,
        Columns::Moodle => moodle(&mut writer, reports, roster, title)?,
        Columns::Canvas => canvas(&mut writer, reports, roster, title)?,
    }
    Ok(writer.into_inner()?)
}

type Writer = csv::Writer<Vec<u8>>;

fn full(writer: &mut Writer, reports: &[Report], roster: &Roster) -> csv::Result<()> {
    let checks: Vec<&str> = crate::checks::all()
        .map(|check| check.id.as_str())
        .filter(|id| reports.iter().any(|report| report.rows.iter().any(|row| row.check.id == *id)))
        .collect();
    let first = ["submission", "student_id", "total", "possible", "client", "server-s", "server"];
    let then = ["dialect", "network", "seconds", "problem", "kit_version"];
    writer.write_record(first.iter().chain(&then).chain(&checks))?;
    for report in reports {
        let total = report.score(None);
        let mut record = vec![plain(&report.name), id(roster, report)];
        record.extend([total.earned.to_string(), total.possible.to_string()]);
        for program in [Program::Client, Program::ServerS, Program::Server] {
            let score = report.score(Some(program));
            record.push(if score.published > 0 { score.earned.to_string() } else { String::new() });
        }
        record.push(report.dialect.name().to_owned());
        record.push(network(report).to_owned());
        record.push(format!("{:.1}", report.took.as_secs_f64()));
        record.push(plain(report.problem.as_deref().map(first_line).unwrap_or_default()));
        record.push(env!("CARGO_PKG_VERSION").to_owned());
        for id in &checks {
            let row = report.rows.iter().find(|row| row.check.id == *id);
            record.push(row.map_or_else(String::new, |row| cell(&row.outcome, row.check.points)));
        }
        writer.write_record(record)?;
    }
    writer.flush()?;
    Ok(())
}

fn moodle(
    writer: &mut Writer,
    reports: &[Report],
    roster: &Roster,
    title: &str,
) -> csv::Result<()> {
    writer.write_record(["ID number", "Email address", title, "Feedback"])?;
    for report in reports {
        let email = roster.student(&report.name).map(|student| student.email.as_str());
        writer.write_record([
            id(roster, report),
            plain(email.unwrap_or_default()),
            report.score(None).earned.to_string(),
            plain(&feedback(report)),
        ])?;
    }
    writer.flush()?;
    Ok(())
}

fn canvas(
    writer: &mut Writer,
    reports: &[Report],
    roster: &Roster,
    title: &str,
) -> csv::Result<()> {
    writer.write_record(["Student", "ID", "SIS User ID", "SIS Login ID", "Section", title])?;
    let possible = reports.iter().map(|report| report.score(None).possible).max().unwrap_or(0);
    writer.write_record(["    Points Possible", "", "", "", "", &possible.to_string()])?;
    for report in reports {
        let name = roster.student(&report.name).map(|student| student.name.as_str());
        writer.write_record([
            plain(name.filter(|name| !name.is_empty()).unwrap_or(&report.name)),
            String::new(),
            id(roster, report),
            String::new(),
            String::new(),
            report.score(None).earned.to_string(),
        ])?;
    }
    writer.flush()?;
    Ok(())
}

/// Returns the value of a check: its points if it is graded, or a word.
fn cell(outcome: &Outcome, points: u32) -> String {
    match (outcome, points) {
        (Outcome::Passed, 0) => "passed".to_owned(),
        (Outcome::Failed { .. }, 0) => "failed".to_owned(),
        (Outcome::Passed, points) => points.to_string(),
        (Outcome::Failed { .. }, _) => "0".to_owned(),
        (Outcome::Trouble(_), _) => "error in the grader".to_owned(),
        (Outcome::Skipped(_) | Outcome::NotGraded(_), _) => String::new(),
    }
}

fn id(roster: &Roster, report: &Report) -> String {
    plain(roster.student(&report.name).map_or("", |student| student.id.as_str()))
}

/// Returns how the network was emulated.
fn network(report: &Report) -> &'static str {
    let has =
        |text: &str| report.rows.iter().flat_map(|row| &row.notes).any(|note| note.contains(text));
    match (has("network: namespace"), has("network: ")) {
        (true, _) => "namespace",
        (false, true) => "proxy",
        _ => "",
    }
}

/// Returns the failed checks in one line.
fn feedback(report: &Report) -> String {
    if let Some(problem) = &report.problem {
        return format!("nothing to grade: {}", first_line(problem));
    }
    let failed = report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed { .. }));
    let failed: Vec<&str> = failed.map(|row| row.check.id.as_str()).collect();
    match failed[..] {
        [] => "all checks passed".to_owned(),
        _ => format!("failed: {}", failed.join(", ")),
    }
}

/// Characters with which formulas begin, also in full width, or that a spreadsheet skips before one.
const FORMULA: [char; 11] =
    ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Returns a text that no spreadsheet takes for a formula, also if it separates cells by semicolons.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins && FORMULA.contains(&c) {
            plain.push('\'');
        }
        plain.push(c);
        begins = matches!(c, ';' | '\t' | '\r' | '\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_a_formula() {
        assert_eq!(plain("=HYPERLINK(\"x\")"), "'=HYPERLINK(\"x\")");
        assert_eq!(plain("amara"), "amara");
        assert_eq!(plain("a-b;c =d"), "a-b;c =d");
        assert_eq!(plain("a;=1+1;@b"), "a;'=1+1;'@b");
        assert_eq!(plain("\u{ff1d}1"), "'\u{ff1d}1");
        assert_eq!(plain("\n=1"), "'\n'=1");
    }
}
