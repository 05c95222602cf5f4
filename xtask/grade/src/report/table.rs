//! Prints the report as a table.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use crate::outcome::{Outcome, Report, Row};
use accio_harness::subject::Program;

/// Width of the column of ids.
const ID: usize = 25;

/// Prints the line of a check.
pub(crate) fn line(out: &mut impl Write, row: &Row) -> io::Result<()> {
    let colour = match row.outcome {
        Outcome::Passed => AnsiColor::Green,
        Outcome::Failed { .. } => AnsiColor::Red,
        Outcome::Skipped(_) | Outcome::NotGraded(_) => AnsiColor::Yellow,
        Outcome::Trouble(_) => AnsiColor::Magenta,
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let points = match row.check.points {
        0 => "-".to_owned(),
        points => points.to_string(),
    };
    let note = match row.outcome.why() {
        "" => row.notes.join("; "),
        why => why.to_owned(),
    };
    let note = if note.is_empty() { note } else { format!("  ({note})") };
    writeln!(
        out,
        "{:ID$} {points:>3}  {style}{:10}{style:#} {:5.1} s  {}{note}",
        row.check.id,
        row.outcome.word(),
        row.took.as_secs_f64(),
        row.check.about,
    )
}

/// Prints the details of all failures.
pub(crate) fn failures(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for row in &report.rows {
        match &row.outcome {
            Outcome::Failed { expected, actual, during } => {
                writeln!(out, "\n{}: {}", row.check.id, row.check.about)?;
                for place in during {
                    writeln!(out, "  during    {place}")?;
                }
                writeln!(out, "  expected  {expected}\n  actual    {actual}")?;
                writeln!(out, "  rule      {}", row.check.rule)?;
                if let Some(cause) = &row.cause {
                    writeln!(out, "  cause     {cause}")?;
                }
                for line in &row.timeline {
                    writeln!(out, "    {line}")?;
                }
                for line in row.notes.iter().chain(&row.stderr) {
                    writeln!(out, "  {line}")?;
                }
                writeln!(out, "  again     {}", row.command)?;
            }
            Outcome::Trouble(why) => {
                writeln!(
                    out,
                    "\n{}: error in the grader, not in the submission: {why}",
                    row.check.id
                )?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Prints the points of each program.
pub(crate) fn scores(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "\n{}, dialect {}, seed {}", report.name, report.dialect.name(), report.seed)?;
    if let Some(problem) = &report.problem {
        return writeln!(out, "  nothing to grade: {problem}");
    }
    for program in report.programs() {
        writeln!(out, "  {:9} {}", program.name(), points(report, program))?;
    }
    let without_points = |which: fn(&Outcome) -> bool| {
        let rows = report.rows.iter().filter(|row| row.check.points == 0);
        rows.filter(|row| which(&row.outcome)).count()
    };
    writeln!(
        out,
        "  without points: {} passed, {} failed, {} skipped or not graded; {:.1} s in all",
        without_points(|outcome| *outcome == Outcome::Passed),
        without_points(|outcome| matches!(outcome, Outcome::Failed { .. })),
        without_points(|outcome| matches!(outcome, Outcome::Skipped(_) | Outcome::NotGraded(_))),
        report.took.as_secs_f64(),
    )?;
    for remark in &report.remarks {
        writeln!(out, "  remark: {remark}")?;
    }
    writeln!(out, "  protections: {}", report.protections.join("; "))
}

/// Prints five lines: the submission, its points for each program, and the first failure.
pub(crate) fn summary(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let total = report.score(None);
    writeln!(
        out,
        "{}: {} of {} points, dialect {}",
        report.name,
        total.earned,
        total.possible,
        report.dialect.name()
    )?;
    for program in [Program::Client, Program::ServerS, Program::Server] {
        let score = report.score(Some(program));
        let text = match score.published {
            0 => "not found".to_owned(),
            _ => points(report, program),
        };
        writeln!(out, "{:9} {text}", program.name())?;
    }
    let text = match report.first_to_fix() {
        Some(row) => format!("{}: {}", row.check.id, row.check.about),
        None => "nothing: all checks passed".to_owned(),
    };
    writeln!(out, "fix first {text}\n")
}

/// Describes the points of a program, and how many are not graded here.
pub(crate) fn points(report: &Report, program: Program) -> String {
    let score = report.score(Some(program));
    let rest = score.published - score.possible;
    let rest = if rest > 0 { format!(" ({rest} not graded here)") } else { String::new() };
    format!("{} of {} points{rest}", score.earned, score.possible)
}
