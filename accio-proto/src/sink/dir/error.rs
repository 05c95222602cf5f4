//! Why a directory cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use crate::os_error::reason;

/// A directory that cannot be used as a [`DirSink`](super::DirSink).
#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}: {}", reason(cause))]
pub struct DirError {
    kind: DirErrorKind,
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

/// The kinds of a [`DirError`], which differ in what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirErrorKind {
    /// The directory cannot be created, opened or read, or no files can be created in it.
    Unusable,
    /// Another server uses it, and not both of them keep existing files.
    InUse,
    /// Its file system cannot give a complete file its name.
    Publish,
    /// Its file system ignores permissions, so [`mode`](super::DirOptions::mode) has no effect.
    Mode,
    /// Its file system cannot write files or names to the disk on request, as
    /// [`durable`](super::DirOptions::durable) needs.
    Durable,
    /// It was removed, or its file system has become read-only, since it was opened.
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

    /// The cause, without the directory's path.
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }

    /// The kind of error.
    pub fn kind(&self) -> DirErrorKind {
        self.kind
    }
}
