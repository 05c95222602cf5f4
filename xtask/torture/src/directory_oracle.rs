//! The oracle: identifies the contents of a FILE-DIR and judges whether they are allowed.
//!
//! Each content begins with a stamp, its tag and length, from which all of its bytes are derived.
//! So a file shows by itself what it must contain, whichever connection it came from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use accio_harness::context::ERROR;
use accio_harness::payload;
use accio_harness::verdict::{Stop, Verdict, ensure};

/// Length of the stamp, and thus of the shortest content, in bytes.
pub(crate) const STAMP: usize = 16;

/// Returns the content with the tag `tag`, at least [`STAMP`] bytes long.
pub(crate) fn content(tag: u64, length: usize) -> Vec<u8> {
    let length = length.max(STAMP);
    let mut bytes = payload::bytes(tag, length);
    bytes[..8].copy_from_slice(&tag.to_le_bytes());
    bytes[8..STAMP].copy_from_slice(&(length as u64).to_le_bytes());
    bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileContent {
    /// The complete content with this tag.
    Whole(u64),
    /// The beginning of a content: tag and number of bytes.
    Partial(u64, usize),
    /// An empty file.
    Empty,
    /// The error marker.
    Error,
    /// Anything else.
    Garbage,
}

/// The contents of a directory.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// How many whole files have each tag.
    pub(crate) whole: BTreeMap<u64, usize>,
    /// Files with the beginning of a content: tag and number of bytes.
    pub(crate) partial: Vec<(u64, usize)>,
    /// Empty files.
    pub(crate) empty: usize,
    /// Error markers.
    pub(crate) errors: usize,
    /// Hidden names of incomplete files, on systems or with flags without nameless files.
    pub(crate) hidden: Vec<String>,
}

/// Identifies the content of a file.
pub(crate) fn identify(bytes: &[u8]) -> FileContent {
    match bytes {
        [] => FileContent::Empty,
        ERROR => FileContent::Error,
        _ => {
            let Some((stamp, _)) = bytes.split_first_chunk::<STAMP>() else {
                return FileContent::Garbage;
            };
            let number = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&stamp[at..at + 8]);
                u64::from_le_bytes(word)
            };
            let (tag, length) = (number(0), number(8) as usize);
            // A damaged stamp must not lead to a huge allocation.
            if length < bytes.len() || length > 1 << 30 {
                return FileContent::Garbage;
            }
            match content(tag, length) {
                whole if whole == bytes => FileContent::Whole(tag),
                whole if whole.starts_with(bytes) => FileContent::Partial(tag, bytes.len()),
                _ => FileContent::Garbage,
            }
        }
    }
}

/// Identifies every file of the directory; returns a fault for a name or content that is not
/// allowed.
pub(crate) fn survey(dir: &Path) -> Verdict<Survey> {
    let mut found = Survey::default();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "lost+found" {
            continue;
        }
        let number = name.strip_suffix(".file").unwrap_or_default();
        if name.starts_with('.') && name.contains(".file.") {
            found.hidden.push(name);
            continue;
        }
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        ensure(is_number, "only names like 1.file in FILE-DIR", || format!("{name:?}"))?;
        let bytes = fs::read(entry.path())?;
        match identify(&bytes) {
            FileContent::Whole(tag) => *found.whole.entry(tag).or_default() += 1,
            FileContent::Partial(tag, length) => found.partial.push((tag, length)),
            FileContent::Empty => found.empty += 1,
            FileContent::Error => found.errors += 1,
            FileContent::Garbage => {
                return Err(Stop::fault(
                    format!("{name} to be complete, empty or ERROR"),
                    payload::describe(&bytes),
                ));
            }
        }
    }
    Ok(found)
}

impl Survey {
    /// Returns a fault for a truncated file, a duplicate, or a hidden name.
    pub(crate) fn ensure_clean(&self) -> Verdict {
        ensure(self.partial.is_empty(), "no truncated file", || {
            format!("{:?} (tag, bytes)", self.partial)
        })?;
        let duplicates: Vec<_> = self.whole.iter().filter(|(_, count)| **count > 1).collect();
        ensure(duplicates.is_empty(), "each content at most once", || format!("{duplicates:?}"))?;
        ensure(self.hidden.is_empty(), "no hidden name", || format!("{:?}", self.hidden))
    }

    /// Returns a fault unless the directory has a whole file for each of these tags.
    pub(crate) fn ensure_kept(&self, tags: &[u64]) -> Verdict {
        let lost: Vec<_> = tags.iter().filter(|tag| !self.whole.contains_key(tag)).collect();
        ensure(lost.is_empty(), "every confirmed upload to be kept", || {
            format!("{} of {} are missing: {lost:?}", lost.len(), tags.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifies_whole_partial_empty_and_damaged_files() {
        let bytes = content(7, 5000);
        assert_eq!(identify(&bytes), FileContent::Whole(7));
        assert_eq!(identify(&bytes[..4999]), FileContent::Partial(7, 4999));
        assert_eq!(identify(b"ERROR"), FileContent::Error);
        assert_eq!(identify(b""), FileContent::Empty);
        for broken in [&b"ERRO"[..], b"ERROR\n", &[0; 40], &[&bytes[..], b"x"].concat()] {
            assert_eq!(identify(broken), FileContent::Garbage);
        }
        let mut torn = bytes;
        torn[4000] ^= 1;
        assert_eq!(identify(&torn), FileContent::Garbage);
    }

    #[test]
    fn rejects_lost_truncated_duplicate_and_torn_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1.file"), content(1, 100)).unwrap();
        fs::write(dir.path().join("2.file"), "ERROR").unwrap();
        let found = survey(dir.path()).unwrap();
        found.ensure_clean().unwrap();
        found.ensure_kept(&[1]).unwrap();
        found.ensure_kept(&[2]).unwrap_err();
        fs::write(dir.path().join("3.file"), &content(3, 100)[..60]).unwrap();
        survey(dir.path()).unwrap().ensure_clean().unwrap_err();
        fs::write(dir.path().join("3.file"), content(1, 100)).unwrap();
        survey(dir.path()).unwrap().ensure_clean().unwrap_err();
        fs::write(dir.path().join("3.file"), "torn").unwrap();
        survey(dir.path()).unwrap_err();
    }
}
