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
    let mut writer = writer();
    match columns {
        Columns::Full => full(&mut writer, reports, roster)?,
        Columns::Moodle => moodle(&mut writer, reports, roster, title)?,
        Columns::Canvas => canvas(&mut writer, reports, roster, title)?,
    }
    Ok(writer.into_inner()?)
}

type Writer = csv::Writer<Vec<u8>>;

/// Returns a writer for which [`quoted`] adds the quotes.
fn writer() -> Writer {
    csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Never).from_writer(Vec::new())
}

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
        let mut record = vec![quoted(&plain(&report.name)), id(roster, report)];
        record.extend([total.earned.to_string(), total.possible.to_string()]);
        for program in [Program::Client, Program::ServerS, Program::Server] {
            let score = report.score(Some(program));
            record.push(if score.published > 0 { score.earned.to_string() } else { String::new() });
        }
        record.push(report.dialect.name().to_owned());
        record.push(network(report).to_owned());
        record.push(format!("{:.1}", report.took.as_secs_f64()));
        let problem = report.problem.as_deref().map(first_line).unwrap_or_default();
        record.push(quoted(&plain(problem)));
        record.push(quoted(env!("CARGO_PKG_VERSION")));
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
    writer.write_record(["ID number", "Email address", &quoted(title), "Feedback"])?;
    for report in reports {
        let email = roster.student(&report.name).map(|student| student.email.as_str());
        writer.write_record([
            id(roster, report),
            quoted(&plain(email.unwrap_or_default())),
            report.score(None).earned.to_string(),
            quoted(&plain(&feedback(report))),
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
    let title = quoted(title);
    writer.write_record(["Student", "ID", "SIS User ID", "SIS Login ID", "Section", &title])?;
    let possible = reports.iter().map(|report| report.score(None).possible).max().unwrap_or(0);
    writer.write_record(["    Points Possible", "", "", "", "", &possible.to_string()])?;
    for report in reports {
        let name = roster.student(&report.name).map(|student| student.name.as_str());
        writer.write_record([
            quoted(&plain(name.filter(|name| !name.is_empty()).unwrap_or(&report.name))),
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
    quoted(&plain(roster.student(&report.name).map_or("", |student| student.id.as_str())))
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

/// Returns a text in quotes, even if it is a number: a spreadsheet can import what is in quotes as text,
/// so that the id `007` does not become 7.
fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// Characters with which formulas begin, also in full width.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Returns a text of which no spreadsheet takes a part for a formula, whether it separates cells by
/// commas, semicolons or tabs. The quotes of the file are right for commas only: in a text, a `;` or `;"`
/// may begin a cell. Spreadsheets ignore quotes, and some ignore white space, before a formula.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut begins = true;
    if text.starts_with(['\t', '\r', '\n']) {
        plain.push('\'');
    }
    for c in text.chars() {
        if begins && FORMULA.contains(&c) {
            plain.push('\'');
        }
        plain.push(c);
        begins = match c {
            ',' | ';' | '\t' | '\r' | '\n' => true,
            _ => begins && (c == '"' || c.is_whitespace() || c.is_control()),
        };
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
        assert_eq!(plain("Okafor, Amara; b@c"), "Okafor, Amara; b@c");
        assert_eq!(plain("a;=1+1;@b"), "a;'=1+1;'@b");
        assert_eq!(plain("a;\"=1+1;\" \"@b"), "a;\"'=1+1;\" \"'@b");
        assert_eq!(plain("a, -b"), "a, '-b");
        assert_eq!(plain("\u{ff1d}1"), "'\u{ff1d}1");
        assert_eq!(plain("\n=1"), "'\n'=1");
    }

    #[test]
    fn only_texts_are_in_quotes() {
        assert_eq!(quoted("007"), "\"007\"");
        assert_eq!(quoted("a \"b\""), "\"a \"\"b\"\"\"");
        assert_eq!(quoted(""), "");
    }

    /// Returns the cells that a spreadsheet with this separator sees, with or without quotes.
    fn cells(file: &[u8], separator: u8, quoting: bool) -> Vec<String> {
        let mut reader = csv::ReaderBuilder::new();
        reader.has_headers(false).flexible(true).buffer_capacity(64);
        reader.delimiter(separator).quoting(quoting);
        let records = reader.from_reader(file).into_byte_records().map(Result::unwrap);
        let text = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
        records.flat_map(|record| record.iter().map(text).collect::<Vec<_>>()).collect()
    }

    #[test]
    fn no_separator_begins_a_cell_with_a_formula() {
        const PARTS: [&str; 8] = ["a", "=", ";", ",", "\t", "\"", " ", "\n"];
        for number in 0..PARTS.len().pow(4) {
            let part = |place| PARTS[number / PARTS.len().pow(place) % PARTS.len()];
            let text: String = (0..4).map(part).collect();
            let mut writer = writer();
            writer.write_record([&quoted("amara"), &quoted(&plain(&text)), "5"]).unwrap();
            let file = writer.into_inner().unwrap();
            assert_eq!(cells(&file, b',', true)[1], plain(&text));
            for (separator, quoting) in
                [b',', b';', b'\t'].map(|one| [(one, true), (one, false)]).concat()
            {
                for cell in cells(&file, separator, quoting) {
                    let start = cell.trim_start_matches(|c: char| c == '"' || c.is_whitespace());
                    assert!(!start.starts_with('='), "{cell:?} of {text:?}, {}", separator as char);
                }
            }
            assert_eq!(plain(&text).replace('\'', ""), text, "only marks are added");
        }
    }
}
