//! Where the journal is: its file, opened by the directory it is in.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use accio_proto::os_error_text;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fsync, openat, statat};

use crate::{Failure, USAGE};

/// A file, by the directory it is in.
#[derive(Debug)]
pub(super) struct Place {
    dir: OwnedFd,
    path: PathBuf,
    /// The name of the file has to survive a power loss.
    durable: bool,
}

impl Place {
    /// The file at `path`, which may not be inside `folder`.
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
        // Synchronizing it takes more than a path.
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

    /// Opens the file, creating it when missing.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let name = self.path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let is_other = statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile);
        // Read for its last byte; reading a pipe would make it one that is read.
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

/// Repeats a call that a signal interrupted.
pub(super) fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    rustix::io::retry_on_intr(call).map_err(io::Error::from)
}

/// The absolute path with no link in it, whether or not the file is there.
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

/// Whether `path` is `folder` or below it, under whatever name.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let folder = identity(folder);
    folder.is_some() && path.ancestors().any(|path| identity(path) == folder)
}
