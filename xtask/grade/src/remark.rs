//! Remarks on the source code and the repository of a submission.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A remark on a file or on the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remark {
    /// The file, relative to the submission, or an empty text.
    pub(crate) file: String,
    /// The line, or 0.
    pub(crate) line: u32,
    /// Description of the problem.
    pub(crate) text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => f.write_str(&self.text),
            (file, 0) => write!(f, "{file}: {}", self.text),
            (file, line) => write!(f, "{file}:{line}: {}", self.text),
        }
    }
}
