//! Finds the dialect of a submission by the texts in its files.

use std::fs;
use std::path::Path;

use accio_harness::peer::Dialect;

/// Maximum size of a file to search.
const SIZE: u64 = 32 << 20;
/// Maximum depth of directories to search.
const DEPTH: usize = 4;

/// Returns the dialect of the programs in `dir`, or `None` if its files contain no text of the
/// handshake.
pub(crate) fn dialect(dir: &Path) -> Option<Dialect> {
    let mut found = Found::default();
    search(dir, DEPTH, &mut found);
    match (found.confirms, found.greets, found.connects) {
        (true, _, _) => Some(Dialect::Confirm),
        (false, true, _) => Some(Dialect::Accio),
        (false, false, true) => Some(Dialect::Direct),
        (false, false, false) => None,
    }
}

#[derive(Debug, Default)]
struct Found {
    /// The text of a confirmation.
    confirms: bool,
    /// The text of the greeting.
    greets: bool,
    /// A script that uses sockets.
    connects: bool,
}

fn search(dir: &Path, depth: usize, found: &mut Found) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 && !name.as_encoded_bytes().starts_with(b".") {
            search(&path, depth - 1, found);
        }
        // A README describes the protocol, but does not speak it.
        let is_text = path.extension().is_some_and(|end| end == "md" || end == "txt");
        let is_small = entry.metadata().is_ok_and(|file| file.is_file() && file.len() <= SIZE);
        if is_text || !is_small {
            continue;
        }
        let content = fs::read(&path).unwrap_or_default();
        let has = |text: &[u8]| content.windows(text.len()).any(|window| window == text);
        found.confirms |= has(b"confirm-accio");
        found.greets |= has(b"accio\\r\\n") || has(b"accio\r\n") || has(b"accio\\x0d\\x0a");
        found.connects |= has(b"socket");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_or_a_greeting_in_a_program_tells_the_dialect() {
        let found = |name: &str, text: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("src")).unwrap();
            fs::write(dir.path().join("src").join(name), text).unwrap();
            dialect(dir.path())
        };
        assert_eq!(found("a.py", r"send(b'confirm-accio\r\n')"), Some(Dialect::Confirm));
        assert_eq!(found("a.py", r"GREETING = b'accio\r\n'"), Some(Dialect::Accio));
        assert_eq!(found("a.py", "import socket"), Some(Dialect::Direct));
        assert_eq!(found("README.md", "confirm-accio"), None);
    }
}
