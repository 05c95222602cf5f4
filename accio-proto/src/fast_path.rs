//! The kernel's fast paths: which there are, and which of them still serve.

use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

/// A way of the kernel to save work. Each has a portable path beside it, taken when the kernel or
/// the file system refuses the fast one, or when told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum FastPath {
    /// Socket to file through a pipe, without a copy into the process (else read and write).
    Splice = 1 << 0,
    /// Counting received bytes without copying them (else they are read into a buffer).
    Truncate = 1 << 1,
    /// A file without a name until it is complete (else a hidden name, renamed at the end).
    Tmpfile = 1 << 2,
    /// Room on the disk ahead of the data (else as it comes).
    Preallocate = 1 << 3,
    /// Naming a file by its descriptor alone (else through `/proc/self/fd`).
    EmptyPath = 1 << 4,
    /// File to socket within the kernel (else read and send).
    Sendfile = 1 << 5,
}

impl FastPath {
    /// All of them.
    pub const ALL: [FastPath; 6] = [
        FastPath::Splice,
        FastPath::Truncate,
        FastPath::Tmpfile,
        FastPath::Preallocate,
        FastPath::EmptyPath,
        FastPath::Sendfile,
    ];

    /// The name used on command lines.
    pub const fn name(self) -> &'static str {
        match self {
            FastPath::Splice => "splice",
            FastPath::Truncate => "truncate",
            FastPath::Tmpfile => "tmpfile",
            FastPath::Preallocate => "preallocate",
            FastPath::EmptyPath => "empty-path",
            FastPath::Sendfile => "sendfile",
        }
    }
}

/// A fast-path name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown fast path {0:?}: use splice, truncate, tmpfile, preallocate, empty-path or sendfile"
)]
pub struct UnknownFastPath(String);

impl FromStr for FastPath {
    type Err = UnknownFastPath;

    fn from_str(value: &str) -> Result<Self, UnknownFastPath> {
        let found = FastPath::ALL.into_iter().find(|path| path.name() == value);
        found.ok_or_else(|| UnknownFastPath(value.to_owned()))
    }
}

/// The fast paths that are tried. A refused one is logged once and never tried again.
#[derive(Debug)]
pub struct FastPaths(AtomicU8);

impl Default for FastPaths {
    /// All of them.
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
    /// All but these.
    pub fn without(refused: impl IntoIterator<Item = FastPath>) -> Self {
        let all = FastPath::ALL.into_iter().fold(0, |set, path| set | path as u8);
        let set = refused.into_iter().fold(all, |set, path| set & !(path as u8));
        FastPaths(AtomicU8::new(set))
    }

    /// Whether `path` is to be tried.
    pub fn has(&self, path: FastPath) -> bool {
        self.0.load(Ordering::Relaxed) & path as u8 != 0
    }

    /// The system refused `path`, for the reason given: the portable path serves from now on.
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
    fn a_refused_path_stays_off_and_the_others_on() {
        let paths = FastPaths::without([FastPath::Tmpfile]);
        assert!(!paths.has(FastPath::Tmpfile) && paths.has(FastPath::Splice));
        paths.refused(FastPath::Splice, "a test");
        paths.refused(FastPath::Splice, "a test");
        assert!(!paths.has(FastPath::Splice) && paths.has(FastPath::Sendfile));
    }

    #[test]
    fn names_parse_back() {
        for path in FastPath::ALL {
            assert_eq!(path.name().parse(), Ok(path));
        }
        assert!("mmap".parse::<FastPath>().unwrap_err().to_string().contains("\"mmap\""));
    }
}
