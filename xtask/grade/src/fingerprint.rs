//! Fingerprints of what was graded.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::check::Check;
use super::settings::{Settings, Submission};

/// Identifies what was graded: two runs with the same values have the same results, except for chance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// A hash of the checks, their points, the dialect, the options and the version of the kit.
    pub(crate) selection: String,
    /// A hash of the names and contents of the submission's files.
    pub(crate) content: String,
}

impl Fingerprint {
    /// Returns the fingerprint of a submission.
    pub(crate) fn of(
        submission: &Submission,
        chosen: &[&'static Check],
        settings: &Settings,
    ) -> Fingerprint {
        let mut selection = Sha256::new();
        let mut add = |text: &str| selection.update(format!("{}:{text}", text.len()));
        add(env!("CARGO_PKG_VERSION"));
        add(submission.dialect.name());
        add(&settings.repeat);
        for check in chosen {
            add(&format!("{} {}", check.id, check.points));
        }
        let mut content = Sha256::new();
        if let Some(root) = &submission.directory {
            let mut files = Vec::new();
            list(root, &mut files);
            for path in files {
                let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                content.update(format!("{}:{name}", name.len()));
                hash(&path, &mut content);
            }
        }
        Fingerprint { selection: hex(selection), content: hex(content) }
    }
}

/// Lists the files below `dir` in order, without those of version control.
fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries.into_iter().filter(|entry| entry.file_name() != ".git") {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

fn hash(path: &Path, into: &mut Sha256) {
    let Ok(mut file) = fs::File::open(path) else { return };
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        into.update(&buffer[..count]);
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
