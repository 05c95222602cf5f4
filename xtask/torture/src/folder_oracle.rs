//! The oracle: what a FILE-DIR may hold.
//!
//! Contents are stamped with the number they are made from, so that any file tells by itself what
//! it must hold, whatever connection it came by.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use accio_harness::context::ERROR;
use accio_harness::payload;
use accio_harness::verdict::{Stop, Verdict, ensure};

/// The shortest stamped content.
pub(crate) const STAMP: usize = 16;

/// Content number `tag`, at least [`STAMP`] bytes.
pub(crate) fn content(tag: u64, length: usize) -> Vec<u8> {
    let length = length.max(STAMP);
    let mut bytes = payload::bytes(tag, length);
    bytes[..8].copy_from_slice(&tag.to_le_bytes());
    bytes[8..STAMP].copy_from_slice(&(length as u64).to_le_bytes());
    bytes
}

/// The content of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// All of a content.
    Whole(u64),
    /// The first so many bytes of a content.
    Start(u64, usize),
    /// No byte.
    Nothing,
    /// The error marker.
    Error,
    /// Something else.
    Garbage,
}

/// The contents of a folder.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How often each content is there as a whole.
    pub(crate) whole: BTreeMap<u64, usize>,
    /// The contents whose start is there: tag and length.
    pub(crate) starts: Vec<(u64, usize)>,
    /// Empty files.
    pub(crate) empty: usize,
    /// Error markers.
    pub(crate) errors: usize,
    /// Names of files on their way, where nameless files are not to be had.
    pub(crate) hidden: Vec<String>,
}

/// Identifies a file's content.
pub(crate) fn identify(bytes: &[u8]) -> Holds {
    match bytes {
        [] => Holds::Nothing,
        ERROR => Holds::Error,
        _ => {
            let Some((stamp, _)) = bytes.split_first_chunk::<STAMP>() else {
                return Holds::Garbage;
            };
            let number = |at: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&stamp[at..at + 8]);
                u64::from_le_bytes(word)
            };
            let (tag, length) = (number(0), number(8) as usize);
            // A torn stamp must not make us allocate the world.
            if length < bytes.len() || length > 1 << 30 {
                return Holds::Garbage;
            }
            match content(tag, length) {
                whole if whole == bytes => Holds::Whole(tag),
                whole if whole.starts_with(bytes) => Holds::Start(tag, bytes.len()),
                _ => Holds::Garbage,
            }
        }
    }
}

/// Looks at every file of the folder; a fault for a name or a content that must not be there.
pub(crate) fn survey(dir: &Path) -> Verdict<Found> {
    let mut found = Found::default();
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
        ensure(is_number, "only names such as 1.file in FILE-DIR", || format!("{name:?}"))?;
        let bytes = fs::read(entry.path())?;
        match identify(&bytes) {
            Holds::Whole(tag) => *found.whole.entry(tag).or_default() += 1,
            Holds::Start(tag, length) => found.starts.push((tag, length)),
            Holds::Nothing => found.empty += 1,
            Holds::Error => found.errors += 1,
            Holds::Garbage => {
                return Err(Stop::fault(
                    format!("{name} to be complete, empty or ERROR"),
                    payload::describe(&bytes),
                ));
            }
        }
    }
    Ok(found)
}

impl Found {
    /// A fault if a file is cut short, or there twice, or a hidden name is left.
    pub(crate) fn ensure_clean(&self) -> Verdict {
        ensure(self.starts.is_empty(), "no file to be cut short", || {
            format!("{:?} (content, bytes)", self.starts)
        })?;
        let twice: Vec<_> = self.whole.iter().filter(|(_, count)| **count > 1).collect();
        ensure(twice.is_empty(), "every content to be there once", || format!("{twice:?}"))?;
        ensure(self.hidden.is_empty(), "no hidden name to be left", || format!("{:?}", self.hidden))
    }

    /// A fault unless all these contents are there as a whole.
    pub(crate) fn ensure_kept(&self, tags: &[u64]) -> Verdict {
        let lost: Vec<_> = tags.iter().filter(|tag| !self.whole.contains_key(tag)).collect();
        ensure(lost.is_empty(), "every confirmed upload to be kept", || {
            format!("{} of {} are not: {lost:?}", lost.len(), tags.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_tell_what_they_are() {
        let bytes = content(7, 5000);
        assert_eq!(identify(&bytes), Holds::Whole(7));
        assert_eq!(identify(&bytes[..4999]), Holds::Start(7, 4999));
        assert_eq!(identify(b"ERROR"), Holds::Error);
        assert_eq!(identify(b""), Holds::Nothing);
        for broken in [&b"ERRO"[..], b"ERROR\n", &[0; 40], &[&bytes[..], b"x"].concat()] {
            assert_eq!(identify(broken), Holds::Garbage);
        }
        let mut torn = bytes;
        torn[4000] ^= 1;
        assert_eq!(identify(&torn), Holds::Garbage);
    }

    #[test]
    fn a_folder_is_judged() {
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
