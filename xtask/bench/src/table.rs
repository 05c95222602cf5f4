//! Prints reports as Markdown.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::report::{Figure, Report, Row, Workload};
use super::stats::Sample;

/// Prints the whole report.
pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let machine = &report.machine;
    writeln!(out, "{}", report.command)?;
    writeln!(
        out,
        "\n{}, {} cores, {} GiB; {}; {}; disk {}; other processes used {} of the CPU time",
        machine.processor,
        machine.cores,
        machine.memory_mib.div_ceil(1024),
        machine.kernel,
        machine.system,
        machine.disk,
        percent(machine.disturbance)
    )?;
    if !report.missing.is_empty() {
        writeln!(out, "\nNot compared, because not installed: {}.", report.missing.join(", "))?;
    }
    for failure in &report.failures {
        writeln!(out, "\nFAILED: {failure}")?;
    }
    for workload in &report.workloads {
        writeln!(out, "\n### {}: {}\n", workload.name, workload.title)?;
        write_workload(workload, out)?;
    }
    if !report.goals.is_empty() {
        writeln!(out, "\n### Goals\n")?;
        write_goals(report, out)?;
    }
    Ok(())
}

fn write_workload(workload: &Workload, out: &mut impl Write) -> io::Result<()> {
    let figures: BTreeSet<Figure> =
        workload.rows.iter().flat_map(|row| row.figures.keys().copied()).collect();
    // Ratios refer to the main figure of the first row.
    let main = figures.first().copied();
    let reference = main.and_then(|main| workload.rows.first()?.figures.get(&main));
    let mut head = vec![String::new()];
    for figure in &figures {
        let unit = workload.rows.iter().find_map(|row| row.figures.get(figure));
        let unit = unit.map_or("", |sample| &sample.unit);
        head.push(match unit {
            "" => figure.title().to_owned(),
            unit => format!("{}, {unit}", figure.title()),
        });
        if Some(*figure) == main {
            head.extend(["best".to_owned(), "ratio to the first".to_owned()]);
        }
    }
    let mut lines = vec![head];
    for row in &workload.rows {
        let mut line = vec![row.peer.clone()];
        for figure in &figures {
            let sample = row.figures.get(figure);
            line.push(sample.map_or(String::new(), with_spread));
            if Some(*figure) == main {
                line.push(sample.map_or(String::new(), |sample| number(sample.best)));
                line.push(match (sample, reference) {
                    (Some(sample), Some(reference)) => with_spread(&sample.ratio_to(reference)),
                    _ => String::new(),
                });
            }
        }
        lines.push(line);
    }
    write_table(&lines, out)?;
    let with_calls: Vec<&Row> = workload.rows.iter().filter(|row| !row.calls.is_empty()).collect();
    if !with_calls.is_empty() {
        writeln!(out)?;
    }
    for row in with_calls {
        for (figure, calls) in &row.calls {
            writeln!(out, "- {}, {}: {calls}", row.peer, figure.title())?;
        }
    }
    Ok(())
}

fn write_goals(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let head = ["", "what", "figure", "spread", "goal", ""];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for goal in &report.goals {
        lines.push(vec![
            goal.id.clone(),
            goal.what.clone(),
            format!("{} {}", number(goal.figure.median), goal.figure.unit),
            percent(goal.figure.spread),
            goal.limit(),
            if goal.is_reached() { "reached" } else { "MISSED" }.to_owned(),
        ]);
    }
    write_table(&lines, out)?;
    let reached = report.goals.iter().filter(|goal| goal.is_reached()).count();
    writeln!(out, "\n{reached} of {} reached", report.goals.len())
}

/// Prints a Markdown table with padded columns.
pub(super) fn write_table(lines: &[Vec<String>], out: &mut impl Write) -> io::Result<()> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for (index, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(&widths) {
            write!(out, "| {cell:width$} ")?;
        }
        writeln!(out, "|")?;
        if index == 0 {
            for width in &widths {
                write!(out, "|{}", "-".repeat(width + 2))?;
            }
            writeln!(out, "|")?;
        }
    }
    Ok(())
}

fn with_spread(sample: &Sample) -> String {
    match sample.values.len() {
        0 => String::new(),
        1 => number(sample.median),
        _ => format!("{} ± {}", number(sample.median), percent(sample.spread)),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// Formats a number with three significant digits and no exponent.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
