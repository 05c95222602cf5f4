//! The state that a server may leave behind, whichever call failed.

use std::path::Path;

use super::work::{EMPTY, UploadResults, length};
use crate::folder_oracle::survey;
use accio_harness::verdict::{Verdict, ensure};

/// A fault unless the printed lines of a counting server, or the folder of another, are as they may
/// be after failures.
pub(super) fn check(lines: Option<&str>, dir: &Path, outcome: &UploadResults) -> Verdict {
    match lines {
        Some(lines) => check_lines(lines, outcome),
        None => check_folder(dir, outcome),
    }
}

pub(super) fn check_folder(dir: &Path, outcome: &UploadResults) -> Verdict {
    let found = survey(dir)?;
    let kept: Vec<u64> = outcome.confirmed.iter().copied().filter(|tag| *tag != EMPTY).collect();
    found.ensure_clean()?;
    found.ensure_kept(&kept)?;
    ensure(found.empty <= outcome.empty, "only the empty upload to be empty", || {
        format!("{} empty files", found.empty)
    })?;
    ensure(
        found.empty >= usize::from(outcome.confirmed.contains(&EMPTY)),
        "the confirmed empty file",
        || "none".into(),
    )?;
    // What was reset or fell silent by design is never kept.
    for tag in [4, 5] {
        let kept = found.whole.contains_key(&tag);
        ensure(!kept, format!("upload {tag}, never ended, not to be kept"), || "it is".into())?;
    }
    Ok(())
}

fn check_lines(text: &str, outcome: &UploadResults) -> Verdict {
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines {
        let number = line.parse::<usize>().ok();
        let known = *line == "ERROR"
            || number
                .is_some_and(|number| number == 0 || (1..=20).any(|tag| length(tag) == number));
        ensure(known, "only counts of what was sent, or ERROR", || format!("{line:?}"))?;
    }
    for tag in &outcome.confirmed {
        let line = if *tag == EMPTY { 0 } else { length(*tag) }.to_string();
        let counted = lines.iter().filter(|other| **other == line).count() == 1;
        ensure(counted, format!("one line {line} for a confirmed upload"), || text.to_owned())?;
    }
    for tag in [4, 5] {
        let line = length(tag).to_string();
        let counted = lines.contains(&line.as_str());
        ensure(!counted, format!("no line {line}: it never ended"), || text.to_owned())?;
    }
    Ok(())
}
