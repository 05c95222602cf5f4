//! The files of a check.

use std::path::PathBuf;

/// The files that the programs of a check may see, in addition to the system's.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Readable directories and files.
    pub readable: Vec<PathBuf>,
    /// Readable and writable directories.
    pub writable: Vec<PathBuf>,
    /// Directories to hide: other submissions, results, reports.
    pub hidden: Vec<PathBuf>,
}
