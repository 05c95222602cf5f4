//! Compares files with their records.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use accio_cli::{ListedFile, ListedFiles};
use accio_proto::{Digest, ERROR_MARKER, os_error_text};

/// The result for one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The name of the file.
    pub(super) name: String,
    pub(super) state: State,
}

/// The state of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The file matches its record in the journal.
    Complete {
        /// Whether its digest was compared, not only its size.
        digest: bool,
    },
    /// The file is the marker of a transfer that failed for this reason.
    Error(String),
    Missing,
    /// The file differs from its record in this way.
    Changed(String),
    /// The file is there, but its record cannot be compared with it, for this reason.
    Unverifiable(String),
    /// The file cannot be read, for this reason.
    Unreadable(String),
    /// The journal does not list the file.
    Unlisted,
}

/// Size of a read.
#[cfg(feature = "digest")]
const BUFFER: usize = 256 << 10;

/// Compares all files, those of the journal by their number and then the others by their name.
///
/// # Errors
///
/// The directory cannot be read.
pub(super) fn check(
    listed: &ListedFiles,
    dir: &Path,
    mut tell: impl FnMut(Finding),
) -> io::Result<()> {
    // Listed first, so that a missing directory is an error.
    let mut unlisted = Vec::new();
    for entry in dir.read_dir()? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(number_of);
        if !number.is_some_and(|number| listed.files.contains_key(&number)) {
            unlisted.push(name.to_string_lossy().into_owned());
        }
    }
    for (number, file) in &listed.files {
        let name = format!("{number}.file");
        let state = compare(&dir.join(&name), file)
            .unwrap_or_else(|error| State::Unreadable(os_error_text(&error)));
        tell(Finding { name, state });
    }
    unlisted.sort();
    unlisted.into_iter().for_each(|name| tell(Finding { name, state: State::Unlisted }));
    Ok(())
}

fn compare(path: &Path, listed: &ListedFile) -> io::Result<State> {
    let (mut file, metadata) = match open(path) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Missing),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Ok(State::Changed("it is a symbolic link".to_owned()));
        }
        // A socket, which cannot be opened.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            return Ok(State::Changed("it is not a regular file".to_owned()));
        }
        Err(error) => return Err(error),
    };
    if !metadata.is_file() {
        return Ok(State::Changed("it is not a regular file".to_owned()));
    }
    match listed {
        ListedFile::Failed { reason } => {
            let mut content = Vec::new();
            file.take(ERROR_MARKER.len() as u64 + 1).read_to_end(&mut content)?;
            Ok(match content == ERROR_MARKER {
                true => State::Error(reason.clone()),
                false => State::Changed("it is not ERROR, though its transfer failed".to_owned()),
            })
        }
        ListedFile::Unverifiable { digest } => Ok(State::Unverifiable(format!(
            "the digest in the journal, {digest:?}, is malformed or of an unknown algorithm"
        ))),
        ListedFile::Complete { bytes, .. } if metadata.len() != *bytes => {
            Ok(State::Changed(format!("it has {} bytes instead of {bytes}", metadata.len())))
        }
        ListedFile::Complete { digest: None, .. } => Ok(State::Complete { digest: false }),
        ListedFile::Complete { digest: Some(digest), .. } => compare_digest(&mut file, digest),
    }
}

/// Opens a file without following a link, and without waiting for the other end of a pipe.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

#[cfg(feature = "digest")]
fn compare_digest(file: &mut File, listed: &Digest) -> io::Result<State> {
    let mut hasher = accio_proto::Hasher::new(listed.algorithm());
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let found = hasher.finish();
    Ok(match found == *listed {
        true => State::Complete { digest: true },
        false => State::Changed(format!("its digest is {found} instead of {listed}")),
    })
}

/// This build computes no digests.
#[cfg(not(feature = "digest"))]
fn compare_digest(_file: &mut File, _listed: &Digest) -> io::Result<State> {
    Ok(State::Complete { digest: false })
}

/// Returns the number of a file that a server could have stored.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".file")?;
    let number = digits.parse().ok()?;
    (digits == format!("{number}")).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn states(journal: &str, dir: &Path) -> Vec<(String, State)> {
        let listed = ListedFiles::read(journal.as_bytes()).unwrap();
        let mut found = Vec::new();
        check(&listed, dir, |finding| found.push((finding.name, finding.state))).unwrap();
        found
    }

    fn changed(why: &str) -> State {
        State::Changed(why.to_owned())
    }

    #[test]
    fn distinguishes_all_differences() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| fs::write(dir.path().join(name), content).unwrap();
        write("1.file", "abc");
        write("2.file", "abcd");
        write("4.file", "ERROR");
        write("5.file", "ERROR!");
        write("07.file", "");
        write("18446744073709551616.file", "");
        fs::create_dir(dir.path().join("6.file")).unwrap();
        std::os::unix::fs::symlink("1.file", dir.path().join("8.file")).unwrap();
        std::os::unix::net::UnixListener::bind(dir.path().join("9.file")).unwrap();
        write("x", "");
        let mut journal = String::new();
        for id in [1, 2, 3, 6, 8, 9] {
            journal += &format!("{{\"id\":{id},\"bytes\":3,\"outcome\":\"complete\"}}\n");
        }
        for id in [4, 5, 7] {
            journal += &format!("{{\"id\":{id},\"outcome\":\"error\",\"reason\":\"idle\"}}\n");
        }
        let expected = [
            ("1.file", State::Complete { digest: false }),
            ("2.file", changed("it has 4 bytes instead of 3")),
            ("3.file", State::Missing),
            ("4.file", State::Error("idle".to_owned())),
            ("5.file", changed("it is not ERROR, though its transfer failed")),
            ("6.file", changed("it is not a regular file")),
            ("7.file", State::Missing),
            ("8.file", changed("it is a symbolic link")),
            ("9.file", changed("it is not a regular file")),
            ("07.file", State::Unlisted),
            ("18446744073709551616.file", State::Unlisted),
            ("x", State::Unlisted),
        ];
        let expected = expected.map(|(name, state)| (name.to_owned(), state));
        assert_eq!(states(&journal, dir.path()), expected);
    }

    #[cfg(feature = "digest")]
    #[test]
    fn a_change_that_keeps_the_size_changes_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let journal = format!(
            "{{\"id\":1,\"bytes\":3,\"digest\":\"sha256:{digest}\",\"outcome\":\"complete\"}}\n"
        );
        fs::write(dir.path().join("1.file"), "abc").unwrap();
        let same = [("1.file".to_owned(), State::Complete { digest: true })];
        assert_eq!(states(&journal, dir.path()), same);
        fs::write(dir.path().join("1.file"), "abd").unwrap();
        let [(_, State::Changed(why))] = &states(&journal, dir.path())[..] else { panic!() };
        assert!(why.starts_with("its digest is sha256:a52d159f") && why.contains(digest), "{why}");
    }
}
