//! Errors of a directory that cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::os_error::reason;

/// The error of a directory that cannot be used as a [`DirSink`](super::DirSink).
#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}: {}", reason(cause))]
pub struct DirError {
    kind: DirErrorKind,
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

/// The kinds of [`DirError`], each with a different remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirErrorKind {
    /// The directory cannot be created, opened or read, or no files can be created in it. Check the
    /// path, its permissions and the free space.
    Unusable,
    /// Another server uses the directory, and at least one of the two replaces existing files. Stop it,
    /// use another directory, or let both [keep](super::Existing::Keep) existing files.
    InUse,
    /// The file system cannot give a complete file its name: use a directory on another one.
    Publish,
    /// The file system ignores permissions, so [`mode`](super::DirOptions::mode) has no effect: do not
    /// set it, or use a directory on another file system.
    Mode,
    /// The file system cannot write files or names to the disk on request, which
    /// [`durable`](super::DirOptions::durable) requires: do not set it, or use a directory on another
    /// file system.
    Durable,
    /// The directory was removed, or its file system became read-only, after it was opened. Restore it
    /// and open it again.
    Gone,
}

impl DirError {
    pub(super) fn new(
        kind: DirErrorKind,
        action: &'static str,
        path: &Path,
        cause: io::Error,
    ) -> Self {
        DirError { kind, action, path: path.to_owned(), cause }
    }

    /// Returns the cause, without the directory's path.
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> DirErrorKind {
        self.kind
    }
}
