//! Location of the journal: a file name and the opened directory that contains it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use accio_proto::os_error_text;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fsync, openat, statat};

use crate::{Failure, USAGE};

/// The journal's file, identified by the opened directory that contains it.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    path: PathBuf,
    /// Whether the name of the file must survive a power loss.
    durable: bool,
}

impl Place {
    /// Locates the file at `path`, which may not be inside `folder`.
    pub(super) fn new(path: &Path, folder: Option<&Path>, durable: bool) -> Result<Self, Failure> {
        let path = resolve(path).map_err(|error| cannot_open(path, &error))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        if let Some(folder) = folder
            && is_inside(parent, folder)
        {
            let what = format_args!("the journal {path:?}").to_string();
            let why = format_args!(
                "inside {folder:?}, where the clients' files are; choose a place outside"
            )
            .to_string();
            return Err(Failure::new(what, why).with_code(USAGE));
        }
        // Syncing the directory requires a readable descriptor, not just a path (`O_PATH`).
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry(|| openat(CWD, parent, flags, Mode::empty()))
            .map_err(|error| cannot_open(&path, &error))?;
        Ok(Place { dir, path, durable })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Opens the file, creating it if it is missing.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let name = self.path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let is_other = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile);
        // A file is also read, to look at its last byte. A pipe is not: this process would count as
        // its reader.
        let access = if is_other { OFlags::WRONLY } else { OFlags::RDWR };
        let flags = access
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let fd = retry(|| openat(&self.dir, name, flags, Mode::from_raw_mode(0o640)))?;
        if self.durable && !is_other {
            retry(|| fsync(&self.dir))?;
        }
        Ok(fd)
    }
}

pub(super) fn cannot_open(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format_args!("cannot open the journal {path:?}"), os_error_text(error))
}

/// Repeats a call that was interrupted by a signal.
pub(super) fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    rustix::io::retry_on_intr(call).map_err(io::Error::from)
}

/// Returns the absolute path without symbolic links, even if the file does not exist yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name))
        }
        resolved => resolved,
    }
}

/// Returns whether `path` is `folder` or below it, under any name.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let folder = identity(folder);
    folder.is_some() && path.ancestors().any(|path| identity(path) == folder)
}
