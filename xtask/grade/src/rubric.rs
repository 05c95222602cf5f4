//! The rubric: the points of each check, and which checks count. The courses' own is the default.

use std::fs::File;
use std::io;
use std::path::Path;

use accio_proto::os_error_text;
use anyhow::{Context, anyhow, bail};

use crate::check::Check;
use crate::checks;

/// Returns the checks as CSV, to be edited.
pub(crate) fn print(chosen: &[&'static Check], out: &mut impl io::Write) -> csv::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(["check", "points", "about"])?;
    for check in chosen {
        let points = check.points.to_string();
        writer.write_record([check.id.as_str(), points.as_str(), check.about])?;
    }
    writer.flush()?;
    Ok(())
}

/// Reads a rubric: returns its checks with its points. Checks that it does not name do not count.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<&'static Check>> {
    let describe = || format!("--rubric {}", path.display());
    let file =
        File::open(path).map_err(|error| anyhow!("{}: {}", describe(), os_error_text(&error)))?;
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(file);
    let mut points: Vec<(String, u32)> = Vec::new();
    for record in reader.records() {
        let record = record.with_context(describe)?;
        let (Some(id), Some(value)) = (record.get(0), record.get(1)) else {
            bail!("{}: a line without points: {record:?}", describe());
        };
        if !checks::all().any(|check| check.id == id) {
            bail!("{}: no check {id:?}: see --print-rubric", describe());
        }
        if points.iter().any(|(other, _)| other == id) {
            bail!("{}: the check {id} twice", describe());
        }
        let value = value.parse().ok().filter(|value| *value <= 1000);
        let value = value.with_context(|| {
            format!("{}: {id}: the points must be a number from 0 to 1000", describe())
        })?;
        points.push((id.to_owned(), value));
    }
    if points.is_empty() {
        bail!("{}: no checks: see --print-rubric", describe());
    }
    let of = |check: &Check| points.iter().find(|(id, _)| *id == check.id).map(|(_, value)| *value);
    // A rubric is read once in a run, and its checks are used until its end.
    let with_points = |check: &'static Check| match of(check)? {
        value if value == check.points => Some(check),
        value => Some(&*Box::leak(Box::new(check.with_points(value)))),
    };
    Ok(checks::all().filter_map(with_points).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> anyhow::Result<Vec<&'static Check>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn the_printed_rubric_is_the_default() {
        let all: Vec<&'static Check> = checks::all().collect();
        let mut text = Vec::new();
        print(&all, &mut text).unwrap();
        let read = read_text(&String::from_utf8(text).unwrap()).unwrap();
        let points = |checks: &[&Check]| -> Vec<(String, u32)> {
            checks.iter().map(|check| (check.id.clone(), check.points)).collect()
        };
        assert_eq!(points(&read), points(&all));
    }

    #[test]
    fn changes_points_and_leaves_out_checks() {
        let read = read_text("check,points\nserver/4,7\nclient/idle,3\n").unwrap();
        let points: Vec<_> = read.iter().map(|check| (check.id.as_str(), check.points)).collect();
        assert_eq!(points, [("client/idle", 3), ("server/4", 7)]);
        for wrong in ["check,points\nserver/99,1\n", "check,points\nserver/4,x\n", "check\n"] {
            assert!(read_text(wrong).is_err(), "{wrong}");
        }
    }
}
