//! Location of the journal: a file name and the opened directory that contains it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
#[cfg(linux_sys)]
use std::os::fd::{AsFd, BorrowedFd};
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
    /// Locates the file at `path`, which may not be inside `file_dir`.
    pub(super) fn new(
        path: &Path,
        file_dir: Option<&Path>,
        durable: bool,
    ) -> Result<Self, Failure> {
        let path = resolve(path).map_err(|error| cannot_open(path, &error))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        require_outside(&path, parent, file_dir)?;
        // Syncing the directory requires a readable descriptor, not just a path (`O_PATH`).
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry(|| openat(CWD, parent, flags, Mode::empty()))
            .map_err(|error| cannot_open(&path, &error))?;
        Ok(Place { dir, path, durable })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(linux_sys)]
    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    #[cfg(linux_sys)]
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

/// Creates the directory of the journal and its parents if missing, unless they would be inside
/// `file_dir`. With `durable`, also syncs their names to the disk.
pub(super) fn create_parent(
    path: &Path,
    file_dir: Option<&Path>,
    durable: bool,
) -> Result<(), Failure> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = parent.ancestors().take_while(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let absolute = std::path::absolute(parent).map_err(|error| cannot_open(path, &error))?;
    require_outside(path, &absolute, file_dir)?;
    fs::create_dir_all(parent).map_err(|error| {
        Failure::new(format_args!("cannot create directory {parent:?}"), os_error_text(&error))
    })?;
    for created in missing.into_iter().filter(|_| durable) {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced =
            fs::File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        if let Err(error) = synced {
            log::warn!("cannot write the name of {created:?} to the disk: {error}");
        }
    }
    Ok(())
}

/// Returns an error if the journal's directory `parent` is inside `file_dir`.
fn require_outside(path: &Path, parent: &Path, file_dir: Option<&Path>) -> Result<(), Failure> {
    match file_dir {
        Some(file_dir) if is_inside(parent, file_dir) => {
            let what = format_args!("the journal {path:?}").to_string();
            let why = format_args!(
                "inside {file_dir:?}, where the clients' files are; choose a place outside"
            )
            .to_string();
            Err(Failure::new(what, why).with_code(USAGE))
        }
        _ => Ok(()),
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

/// Returns whether `path` is `file_dir` or below it, under any name.
fn is_inside(path: &Path, file_dir: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let file_dir = identity(file_dir);
    file_dir.is_some() && path.ancestors().any(|path| identity(path) == file_dir)
}
