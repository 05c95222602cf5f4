//! Fast paths of the kernel, and which of them are in use.

use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::program_log as log;

/// A fast path of the kernel. Each has a portable alternative, which is used if the kernel or the
/// file system does not support the fast path, or if it is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FastPath {
    /// Moves bytes from a socket to a file through a pipe, without a copy into the process
    /// (otherwise: read and write).
    Splice = 1 << 0,
    /// Counts received bytes without copying them (otherwise: read into a buffer).
    Truncate = 1 << 1,
    /// Creates files without a name until they are complete (otherwise: a hidden name that is
    /// renamed at the end).
    Tmpfile = 1 << 2,
    /// Allocates disk blocks ahead of the data (otherwise: with the data).
    Preallocate = 1 << 3,
    /// Names a file by its descriptor alone (otherwise: through `/proc/self/fd`).
    EmptyPath = 1 << 4,
    /// Sends a file to a socket within the kernel (otherwise: read and send).
    Sendfile = 1 << 5,
    /// Reads content back from the file to compute its digest, so that [`Splice`](FastPath::Splice)
    /// can move it (otherwise: through a buffer).
    ReadBack = 1 << 6,
}

impl FastPath {
    /// All fast paths.
    pub const ALL: [FastPath; 7] = [
        FastPath::Splice,
        FastPath::Truncate,
        FastPath::Tmpfile,
        FastPath::Preallocate,
        FastPath::EmptyPath,
        FastPath::Sendfile,
        FastPath::ReadBack,
    ];

    /// Returns the name for command lines.
    pub const fn name(self) -> &'static str {
        match self {
            FastPath::Splice => "splice",
            FastPath::Truncate => "truncate",
            FastPath::Tmpfile => "tmpfile",
            FastPath::Preallocate => "preallocate",
            FastPath::EmptyPath => "empty-path",
            FastPath::Sendfile => "sendfile",
            FastPath::ReadBack => "read-back",
        }
    }
}

/// A string that is not the name of a fast path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown fast path {0:?}: use splice, truncate, tmpfile, preallocate, empty-path, sendfile or \
     read-back"
)]
pub struct UnknownFastPath(String);

impl FromStr for FastPath {
    type Err = UnknownFastPath;

    fn from_str(value: &str) -> Result<Self, UnknownFastPath> {
        let found = FastPath::ALL.into_iter().find(|path| path.name() == value);
        found.ok_or_else(|| UnknownFastPath(value.to_owned()))
    }
}

/// The enabled fast paths. An unsupported one is logged once and then disabled.
#[derive(Debug)]
pub struct FastPaths(AtomicU8);

impl Default for FastPaths {
    /// Enables all fast paths.
    fn default() -> Self {
        FastPaths::without([])
    }
}

impl Clone for FastPaths {
    fn clone(&self) -> Self {
        FastPaths(AtomicU8::new(self.0.load(Ordering::Relaxed)))
    }
}

impl FastPaths {
    /// Enables all fast paths except these.
    pub fn without(refused: impl IntoIterator<Item = FastPath>) -> Self {
        let all = FastPath::ALL.into_iter().fold(0, |set, path| set | path as u8);
        let set = refused.into_iter().fold(all, |set, path| set & !(path as u8));
        FastPaths(AtomicU8::new(set))
    }

    /// Returns whether `path` is enabled.
    pub fn has(&self, path: FastPath) -> bool {
        self.0.load(Ordering::Relaxed) & path as u8 != 0
    }

    /// Disables `path`, which the system does not support: the portable path is used from now on.
    pub(crate) fn refused(&self, path: FastPath, why: impl std::fmt::Display) {
        let before = self.0.fetch_and(!(path as u8), Ordering::Relaxed);
        if before & path as u8 != 0 {
            log::info!("no {} here ({why}): using the portable path", path.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disables_only_the_refused_path() {
        let paths = FastPaths::without([FastPath::Tmpfile]);
        assert!(!paths.has(FastPath::Tmpfile) && paths.has(FastPath::Splice));
        paths.refused(FastPath::Splice, "a test");
        paths.refused(FastPath::Splice, "a test");
        assert!(!paths.has(FastPath::Splice) && paths.has(FastPath::Sendfile));
    }

    #[test]
    fn names_round_trip() {
        for path in FastPath::ALL {
            assert_eq!(path.name().parse(), Ok(path));
        }
        assert!("mmap".parse::<FastPath>().unwrap_err().to_string().contains("\"mmap\""));
    }
}
