//! Checks the results that a server leaves, whichever system call failed.

use std::path::Path;

use super::work::{EMPTY, UploadResults, length};
use crate::directory_oracle::survey;
use crate::journal_oracle::complete_uploads;
use accio_harness::verdict::{Verdict, ensure};

/// Returns a fault unless the results are allowed: the lines of a server that prints counts, or the
/// directory of one that keeps files.
pub(super) fn check(lines: Option<&str>, dir: &Path, results: &UploadResults) -> Verdict {
    match lines {
        Some(lines) => check_lines(lines, results),
        None => check_directory(dir, results),
    }
}

pub(super) fn check_directory(dir: &Path, results: &UploadResults) -> Verdict {
    let found = survey(dir)?;
    let kept: Vec<u64> = results.confirmed.iter().copied().filter(|tag| *tag != EMPTY).collect();
    found.ensure_clean()?;
    found.ensure_kept(&kept)?;
    ensure(found.empty <= results.empty, "only the empty upload to be empty", || {
        format!("{} empty files", found.empty)
    })?;
    ensure(
        found.empty >= usize::from(results.confirmed.contains(&EMPTY)),
        "the confirmed empty file",
        || "none".into(),
    )?;
    // Uploads 4 and 5 are reset or silent, so they are never kept.
    for tag in [4, 5] {
        let kept = found.whole.contains_key(&tag);
        ensure(!kept, format!("upload {tag}, which has no FIN, not to be kept"), || {
            "it is".into()
        })?;
    }
    Ok(())
}

/// Returns a fault unless the journal has a line for each confirmed upload, or the log says that the
/// journal failed.
pub(super) fn check_journal(journal: &Path, log: &str, results: &UploadResults) -> Verdict {
    let mut missing: Vec<u64> = Vec::new();
    let mut sizes: Vec<u64> = complete_uploads(journal)?.into_values().collect();
    for tag in &results.confirmed {
        let size = if *tag == EMPTY { 0 } else { length(*tag) as u64 };
        match sizes.iter().position(|other| *other == size) {
            Some(at) => drop(sizes.swap_remove(at)),
            None => missing.push(*tag),
        }
    }
    let admitted = log.contains("cannot write the journal");
    ensure(
        missing.is_empty() || admitted,
        "a line in the journal for each confirmed upload",
        || format!("none for {missing:?}"),
    )
}

fn check_lines(text: &str, results: &UploadResults) -> Verdict {
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines {
        let number = line.parse::<usize>().ok();
        let known = *line == "ERROR"
            || number
                .is_some_and(|number| number == 0 || (1..=20).any(|tag| length(tag) == number));
        ensure(known, "only numbers of bytes that were sent, or ERROR", || format!("{line:?}"))?;
    }
    for tag in &results.confirmed {
        let line = if *tag == EMPTY { 0 } else { length(*tag) }.to_string();
        let counted = lines.iter().filter(|other| **other == line).count() == 1;
        ensure(counted, format!("one line {line} for a confirmed upload"), || text.to_owned())?;
    }
    for tag in [4, 5] {
        let line = length(tag).to_string();
        let counted = lines.contains(&line.as_str());
        ensure(!counted, format!("no line {line} for an upload without FIN"), || text.to_owned())?;
    }
    Ok(())
}
