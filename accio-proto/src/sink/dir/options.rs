//! Options of a directory, and its opening.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::directory::{Dir, Exclusive};
use super::error::{DirError, DirErrorKind};
use super::existing::Existing;
use super::file::DirFile;
use super::hidden_name::HiddenNames;
use super::names::Names;
use super::reopening::Reopening;
use super::spare::Spare;
use super::{DirSink, lock, rehearsal};
use crate::connection::Connection;
use crate::fast_path::{FastPath, FastPaths};
use crate::program_log as log;
use crate::sys::file as calls;

/// Options for using a directory; every option has a default.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DirOptions {
    paths: FastPaths,
    durable: bool,
    min_free: u64,
    existing: Existing,
    mode: Option<u32>,
    names: Names,
    reopening: Reopening,
}

impl DirOptions {
    /// Sets the fast paths to try; by default all. Those with an effect here are
    /// [`FastPath::Tmpfile`], [`FastPath::EmptyPath`], [`FastPath::Preallocate`] and
    /// [`FastPath::ReadBack`].
    pub fn fast_paths(self, paths: FastPaths) -> Self {
        DirOptions { paths, ..self }
    }

    /// Sets whether a commit waits until the file and its name are on the disk, so that they
    /// survive a power loss. Off by default, because it takes some milliseconds. The name of an
    /// error marker is written shortly afterwards: after a power loss it may be missing, but no
    /// other file has its name.
    pub fn durable(self, durable: bool) -> Self {
        DirOptions { durable, ..self }
    }

    /// Sets how many bytes must be free on the file system for a new connection to be accepted; 0
    /// by default. With it, one percent of all inodes (at most 1024) must be free as well. Without
    /// it, no connection is accepted if no inode is free.
    pub fn min_free(self, min_free: u64) -> Self {
        DirOptions { min_free, ..self }
    }

    /// Sets the handling of an `N.file` that exists when connection N ends; replaced by default.
    pub fn existing(self, existing: Existing) -> Self {
        DirOptions { existing, ..self }
    }

    /// Sets the exact permissions of the files, such as `0o640`; by default `0o666` minus the umask
    /// of the process. Only the nine permission bits are used.
    pub fn mode(self, mode: u32) -> Self {
        DirOptions { mode: Some(mode & 0o777), ..self }
    }

    /// Calls `choose` for the name of each file, instead of naming it `N.file`.
    ///
    /// A name must be a single component of a path, of at most 255 bytes, and different for each
    /// connection; otherwise the connection fails, or one file replaces another as configured by
    /// [`existing`](DirOptions::existing). The same connection may ask twice, and must get the same
    /// name. [`DirSink::highest`] and [`DirSink::count_from`] know only files named `N.file`.
    pub fn names(self, choose: impl Fn(&Connection) -> String + Send + Sync + 'static) -> Self {
        DirOptions { names: Names(Some(Arc::new(choose))), ..self }
    }

    /// Calls `open` to open a file that has no name yet again, for reading, instead of opening it through
    /// `/proc/self/fd`: for a program whose sandbox forbids that. It is called by the threads that
    /// receive content, for large files of a server that computes digests, and may block for a short
    /// time. Once it has failed, content is not [read back](FastPath::ReadBack).
    pub fn reopen(
        self,
        open: impl Fn(BorrowedFd<'_>) -> io::Result<OwnedFd> + Send + Sync + 'static,
    ) -> Self {
        DirOptions { reopening: Reopening(Some(Arc::new(open))), ..self }
    }

    /// Opens the directory at `path`, creating it and its parents if missing. Locks it, removes
    /// hidden files left by a killed process, and tests every operation that an upload needs, using
    /// a hidden name.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`DirSink::create`].
    pub fn create(self, path: impl AsRef<Path>) -> Result<DirSink, DirError> {
        self.create_by(path.as_ref(), &[Exclusive::Rename, Exclusive::Claim])
    }

    pub(super) fn create_by(self, path: &Path, ways: &[Exclusive]) -> Result<DirSink, DirError> {
        let error = |kind| move |why| DirError::new(kind, "cannot use directory", path, why);
        let fd = match calls::open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_all(path, self.durable).and_then(|()| calls::open_dir(path))
            }
            opened => opened,
        };
        let fd = fd.map_err(error(DirErrorKind::Unusable))?;
        let is_shared = lock::lock(&fd, path, self.existing)
            .map_err(|_| error(DirErrorKind::InUse)(io::Error::other("another server uses it")))?;
        let DirOptions { paths, durable, min_free, existing, mode, names, reopening } = self;
        let mut dir = Dir {
            fd,
            path: path.to_owned(),
            paths,
            durable,
            min_free,
            counts_inodes: true,
            existing,
            is_shared,
            exclusive: Exclusive::Rename,
            mode,
            names,
            reopening,
            hidden_names: HiddenNames::default(),
            gone_is_logged: AtomicBool::new(false),
            spare: Spare::default(),
            unsynced: AtomicBool::new(false),
        };
        rehearsal::rehearse(&mut dir, ways)?;
        let sink = DirSink { dir: Arc::new(dir) };
        if sink.dir.paths.has(FastPath::Tmpfile) {
            let first = DirFile::open(&sink.dir, 0, String::new());
            let first = first.map_err(error(DirErrorKind::Unusable))?;
            match first.into_spare() {
                Ok(Some(spare)) => sink.dir.spare.set(spare),
                Ok(None) => {}
                Err(error) => {
                    let why = crate::os_error::reason(&error);
                    log::warn!("no spare error marker yet: {why}");
                    sink.dir.spare.is_worn.store(true, Ordering::Relaxed);
                }
            }
        }
        Ok(sink)
    }
}

/// Creates a directory and its parents; with `durable`, also syncs their names to the disk.
fn create_all(path: &Path, durable: bool) -> io::Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(path)?;
    for created in missing.into_iter().filter(|_| durable) {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced = calls::open_dir(parent.unwrap_or(Path::new("."))).and_then(calls::sync);
        // If that is impossible, the rehearsal rejects the directory with the reason.
        if let Err(error) = synced {
            log::warn!("cannot write the name of {created:?} to the disk: {error}");
        }
    }
    Ok(())
}
