//! The state that a server may leave behind, whichever call failed.

use std::path::Path;

use super::server::{Started, Subject};
use super::work::{EMPTY, UploadResults, length};
use crate::folder_oracle::survey;
use accio_harness::verdict::{Verdict, ensure};

/// A fault unless it left nothing but what it may.
pub(super) fn check(server: &Started, subject: Subject, outcome: &UploadResults) -> Verdict {
    if subject.counts {
        check_lines(&server.process.stdout().text(), outcome)
    } else {
        check_folder(&server.dir, subject, outcome)
    }
}

pub(super) fn check_folder(dir: &Path, subject: Subject, outcome: &UploadResults) -> Verdict {
    if subject.counts {
        return Ok(());
    }
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
