//! Reports the changes between two runs that exceed the noise.

use std::io::{self, Write};

use super::report::{Report, VERSION};
use super::stats::{Better, Sample};
use super::table::{number, write_table};

/// Smallest relative difference that counts as a change.
const MINIMUM: f64 = 0.03;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Better,
    Worse,
    Unchanged,
}

/// Reads a report that `--json` wrote.
pub(super) fn read(path: &std::path::Path) -> anyhow::Result<Report> {
    use anyhow::{Context, ensure};
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {path:?}"))?;
    let report: Report = serde_json::from_reader(io::BufReader::new(file))
        .with_context(|| format!("{path:?} is not a report of this benchmark"))?;
    ensure!(
        report.version == VERSION,
        "{path:?} has report version {}, not {VERSION}",
        report.version
    );
    Ok(report)
}

/// Prints a table of the changes.
pub(super) fn write(before: &Report, after: &Report, out: &mut impl Write) -> io::Result<()> {
    if before.machine.processor != after.machine.processor
        || before.machine.kernel != after.machine.kernel
        || before.machine.cores != after.machine.cores
    {
        writeln!(out, "The runs are from different machines or kernels: compare with care.\n")?;
    }
    let head = ["workload", "peer", "figure", "before", "after", "change", ""];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let mut compared = 0;
    for workload in &after.workloads {
        let Some(old) = before.workload(&workload.name) else { continue };
        for row in &workload.rows {
            for (figure, new) in &row.figures {
                let Some(old) = old.sample(&row.peer, *figure) else { continue };
                compared += 1;
                let change = match judge(old, new) {
                    Change::Unchanged => continue,
                    Change::Better => "better",
                    Change::Worse => "WORSE",
                };
                lines.push(vec![
                    workload.name.clone(),
                    row.peer.clone(),
                    figure.title().to_owned(),
                    format!("{} {}", number(old.median), old.unit),
                    format!("{} {}", number(new.median), new.unit),
                    format!("{:+.0}%", (new.median / old.median - 1.0) * 100.0),
                    change.to_owned(),
                ]);
            }
        }
    }
    let changed = lines.len() - 1;
    if changed > 0 {
        write_table(&lines, out)?;
        writeln!(out)?;
    }
    writeln!(out, "{changed} of {compared} figures changed beyond the noise")
}

/// Returns whether a figure changed: its median by at least 3 %, and its interquartile ranges in
/// the two runs do not overlap.
fn judge(before: &Sample, after: &Sample) -> Change {
    let change = after.median / before.median - 1.0;
    let ((low, high), (new_low, new_high)) = (before.quartiles(), after.quartiles());
    let apart = new_low > high || new_high < low;
    if !change.is_finite() || change.abs() < MINIMUM || !apart {
        return Change::Unchanged;
    }
    if (change > 0.0) == (after.better == Better::Higher) { Change::Better } else { Change::Worse }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(values: &[f64]) -> Sample {
        Sample::new("GB/s", Better::Higher, values.to_vec())
    }

    #[test]
    fn reports_only_changes_that_exceed_the_noise() {
        let before = rates(&[3.9, 4.0, 4.1, 4.0]);
        assert_eq!(judge(&before, &before), Change::Unchanged);
        assert_eq!(
            judge(&before, &rates(&[4.05, 4.1, 4.02, 4.08])),
            Change::Unchanged,
            "too little"
        );
        assert_eq!(judge(&before, &rates(&[3.0, 4.6, 5.2, 4.0])), Change::Unchanged, "too noisy");
        assert_eq!(judge(&before, &rates(&[4.5, 4.6, 4.7, 4.6])), Change::Better);
        assert_eq!(judge(&before, &rates(&[3.5, 3.6, 3.7, 3.6])), Change::Worse);
        let times = |value| Sample::new("s", Better::Lower, vec![value; 3]);
        assert_eq!(judge(&times(1.0), &times(2.0)), Change::Worse);
    }
}
