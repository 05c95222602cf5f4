//! A sink that stores connection N as `N.file` in a directory.

mod error;
mod file;
mod group;
#[cfg(test)]
mod group_crash_test;
mod hidden_name;
mod lock;
mod marker;
mod names;
mod options;
mod rehearsal;
mod room;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{ERROR_MARKER, FileSink, OpenError, SinkFile};
use crate::connection::Connection;
use crate::fast_path::{FastPath, FastPaths};
use crate::sys::file as calls;
pub use error::{DirError, DirErrorKind};
pub use file::DirFile;
use hidden_name::HiddenNames;
use marker::Spare;
use names::Names;
pub use options::DirOptions;

/// Stores the bytes of connection N as `N.file` in one directory, or under a name that the program
/// [chooses](DirOptions::names).
///
/// A file gets its name in one step, when it is complete or contains only the [error
/// marker](super::ERROR_MARKER), and replaces an `N.file` of an earlier run. Names are relative to
/// the opened directory, even if that is moved, and symbolic links in it are never followed. On
/// file systems without unnamed files, an upload has a hidden name, `.N.file.…`, until it is
/// complete; hidden files left by a killed process are removed when the directory is opened next.
///
/// A committed file survives the death of the process immediately, and a power loss some seconds
/// later, when the system has written it back. With [`durable`](DirOptions::durable), it survives a
/// power loss as soon as the commit returns.
///
/// A process with a limit on the size of files (`ulimit -f`) must ignore or handle the signal SIGXFSZ,
/// which ends it by default. An upload above the limit then fails, as on a full disk.
///
/// Clones share the directory and its lock.
#[derive(Debug, Clone)]
pub struct DirSink {
    dir: Arc<Dir>,
}

#[derive(Debug)]
struct Dir {
    /// The lock is held while this descriptor is open.
    fd: OwnedFd,
    /// The path as it was given, for messages.
    path: PathBuf,
    paths: FastPaths,
    durable: bool,
    min_free: u64,
    /// Whether the file system's number of free inodes can be relied on.
    counts_inodes: bool,
    existing: Existing,
    /// Whether another server used the directory when this one locked it.
    is_shared: bool,
    exclusive: Exclusive,
    /// The permissions of the files; `None` means 0666 minus the umask.
    mode: Option<u32>,
    names: Names,
    hidden_names: HiddenNames,
    /// Whether the log already says that the directory was removed.
    gone_is_logged: AtomicBool,
    spare: Spare,
    /// Whether there may be names of markers that are not on the disk.
    unsynced: AtomicBool,
}

/// Handling of an existing file with a connection's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Existing {
    /// The new file replaces the existing one in one step.
    #[default]
    Replace,
    /// The existing file stays and the transfer fails, leaving neither its content nor an error
    /// marker.
    Keep,
}

/// How a file with a hidden name is renamed without replacing another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exclusive {
    /// By a rename that does not replace, or by a hard link, whichever the system supports.
    Rename,
    /// By creating the name as an error marker, and then replacing that by a rename.
    Claim,
}

impl DirSink {
    /// Opens the directory at `path` with the default options; creates it if missing, with its parents.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be created or opened, if the path is not a
    /// directory, if another server uses it, or if its file system does not support the options;
    /// see [`DirErrorKind`].
    pub fn create(path: impl AsRef<Path>) -> Result<Self, DirError> {
        DirOptions::default().create(path)
    }

    /// Returns options for opening a directory.
    pub fn options() -> DirOptions {
        DirOptions::default()
    }

    /// Returns whether another server used the directory when this one opened it. Both keep existing
    /// files then; neither knows which numbers the other assigns.
    pub fn is_shared(&self) -> bool {
        self.dir.is_shared
    }

    /// Returns the highest N of all files `N.file` in the directory.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be read.
    pub fn highest(&self) -> io::Result<Option<u64>> {
        let mut highest = None;
        self.each_number(|number| highest = highest.max(Some(number)))?;
        Ok(highest)
    }

    /// Returns the number of files `N.file` whose N is at least `first`: those that connections
    /// numbered from `first` would replace.
    ///
    /// # Errors
    ///
    /// Returns an error if the directory cannot be read.
    pub fn count_from(&self, first: u64) -> io::Result<u64> {
        let mut count = 0;
        self.each_number(|number| count += u64::from(number >= first))?;
        Ok(count)
    }

    /// Checks, fast enough for a health check, that the directory was not removed, that its file system
    /// is not read-only and, on file systems with unnamed files, that a file can be created.
    ///
    /// # Errors
    ///
    /// Returns [`DirErrorKind::Gone`], or [`DirErrorKind::Unusable`] if no file can be created.
    pub fn check_ready(&self) -> Result<(), DirError> {
        let error = |kind| {
            move |why| DirError::new(kind, "cannot keep files in directory", &self.dir.path, why)
        };
        let gone = error(DirErrorKind::Gone);
        if self.dir.is_removed() {
            return Err(gone(io::Error::other(REMOVED)));
        }
        if calls::is_read_only(&self.dir.fd).map_err(error(DirErrorKind::Gone))? {
            return Err(gone(io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        if self.dir.paths.has(FastPath::Tmpfile) {
            // Removes its hidden name, should it have one.
            let file = DirFile::open(&self.dir, 0, String::new());
            file.map_err(error(DirErrorKind::Unusable))?;
        }
        Ok(())
    }

    fn each_number(&self, mut call: impl FnMut(u64)) -> io::Result<()> {
        for name in calls::names(&self.dir.fd)? {
            if let Some(number) = name?.to_str().ok().and_then(number_of) {
                call(number);
            }
        }
        Ok(())
    }
}

impl FileSink for DirSink {
    type File = DirFile;

    fn open(&self, connection: &Connection) -> Result<DirFile, OpenError> {
        let name = self.dir.names.name(connection)?;
        Ok(DirFile::open(&self.dir, connection.id, name)?)
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.dir.mark(connection.id, &self.dir.names.name(connection)?)
    }

    fn has_room(&self) -> bool {
        self.dir.has_room()
    }

    fn commits_in_groups(&self) -> bool {
        self.dir.durable
    }

    fn commit_all(
        &self,
        files: &mut [&mut DirFile],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        if self.dir.durable {
            return file::commit_group(&self.dir, files, may_name);
        }
        let commit = |(index, file): (usize, &mut &mut DirFile)| match may_name(index) {
            true => file.commit(),
            false => Err(io::ErrorKind::Interrupted.into()),
        };
        files.iter_mut().enumerate().map(commit).collect()
    }

    fn stopping(&self) {
        self.dir.spare.stop_creating();
    }

    fn tidy(&self) {
        self.dir.tidy();
    }
}

impl AsFd for DirSink {
    /// Returns the descriptor of the directory.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.fd.as_fd()
    }
}

impl Dir {
    /// Creates an empty file; returns it with its hidden name, if it must have one. It never has more
    /// permissions than in the end.
    fn open(&self, id: u64) -> io::Result<(OwnedFd, Option<String>)> {
        // The umask may remove some of these permissions until `set_mode` adds them.
        let mode = self.mode.unwrap_or(0o666);
        if self.paths.has(FastPath::Tmpfile) {
            match calls::open_anonymous(&self.fd, mode) {
                Err(error) if calls::has_no_unnamed_files(&error) => {
                    self.paths.refused(FastPath::Tmpfile, error);
                }
                opened => return opened.map(|fd| (fd, None)).map_err(|error| self.explain(error)),
            }
        }
        let create = |name: &str| calls::create_new(&self.fd, name, mode);
        let created = self.hidden_names.first_free(id, create);
        created.map(|(fd, name)| (fd, Some(name))).map_err(|error| self.explain(error))
    }

    /// Sets the requested permissions, regardless of the umask.
    fn set_mode(&self, file: &OwnedFd) -> io::Result<()> {
        let Some(mode) = self.mode else { return Ok(()) };
        match calls::set_mode(file, mode) {
            // Some file systems reject any change, but give all files the same fixed mode.
            Err(error) => match calls::fstat(file) {
                Ok(stat) if stat.mode == mode => Ok(()),
                _ => Err(error),
            },
            set => set,
        }
    }

    /// Gives a file its name in one step. `hidden` is its temporary name; if the file has none but
    /// needs one in between, it is set to the new one.
    fn publish(&self, fd: &OwnedFd, hidden: &mut Option<String>, name: &str) -> io::Result<()> {
        self.publish_or_fail(fd, hidden, name).map_err(|error| self.explain(error))
    }

    fn publish_or_fail(
        &self,
        fd: &OwnedFd,
        hidden: &mut Option<String>,
        name: &str,
    ) -> io::Result<()> {
        let was_unnamed = hidden.is_none();
        if was_unnamed {
            match self.link(fd, name) {
                Ok(()) => return Ok(()),
                // Only a rename replaces a file atomically, and a rename needs an existing name.
                Err(error) if is_taken(&error) && self.existing == Existing::Replace => {
                    let link = |on_the_way: &str| self.link(fd, on_the_way);
                    let ((), on_the_way) = self.hidden_names.first_free(0, link)?;
                    *hidden = Some(on_the_way);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(from) = &*hidden else { return Ok(()) };
        match (self.existing, self.exclusive) {
            (Existing::Replace, _) => {
                calls::rename(&self.fd, from, name)?;
                if was_unnamed {
                    // If both names are of the spare marker, the rename has no effect.
                    let _ = calls::unlink(&self.fd, from);
                }
                *hidden = None;
            }
            (Existing::Keep, Exclusive::Rename) => {
                let renamed = calls::rename_new(&self.fd, from, name)?;
                // If the old name cannot be removed, that is tried again when the file is dropped.
                if renamed || calls::unlink(&self.fd, from).is_ok() {
                    *hidden = None;
                }
            }
            (Existing::Keep, Exclusive::Claim) => {
                self.claim(name)?;
                calls::rename(&self.fd, from, name).inspect_err(|_| self.remove(name))?;
                *hidden = None;
            }
        }
        Ok(())
    }

    /// Creates the name as an error marker without replacing another file. If the server is killed
    /// before the file itself takes the name, the marker correctly says that the transfer failed.
    fn claim(&self, name: &str) -> io::Result<()> {
        let claim = calls::create_new(&self.fd, name, self.mode.unwrap_or(0o666))?;
        calls::write_all(&claim, ERROR_MARKER).inspect_err(|_| self.remove(name))
    }

    fn remove(&self, name: &str) {
        if let Err(error) = calls::unlink(&self.fd, name) {
            log::warn!("cannot remove {name:?}: {error}");
        }
    }

    /// Handles a failed sync of the directory after the file of connection `id` got its name:
    /// removes the name, so that no file remains when the peer sees the failure.
    fn take_back(&self, id: u64, name: &str) {
        if let Err(error) = calls::unlink(&self.fd, name) {
            log::error!(
                "connection {id}: cannot remove the file, which was not confirmed: {error}"
            );
        }
    }

    /// Returns whether the directory was removed, even if its path now names another one.
    fn is_removed(&self) -> bool {
        !calls::fstat(&self.fd).is_ok_and(|stat| stat.links > 0)
    }

    /// Replaces an error that was caused by the removal of the directory, and logs that once.
    fn explain(&self, error: io::Error) -> io::Error {
        if is_taken(&error) || !self.is_removed() {
            return error;
        }
        if !self.gone_is_logged.swap(true, Ordering::Relaxed) {
            let path = &self.path;
            log::error!("cannot keep files in {path:?}: {REMOVED}: restart the server");
        }
        io::Error::new(io::ErrorKind::NotFound, REMOVED)
    }

    /// Gives an unnamed file a name, if that is free.
    fn link(&self, fd: &OwnedFd, name: &str) -> io::Result<()> {
        if !self.paths.has(FastPath::EmptyPath) {
            return calls::link_proc(fd, &self.fd, name);
        }
        match calls::link_empty_path(fd, &self.fd, name) {
            Err(error) if !is_taken(&error) => {
                calls::link_proc(fd, &self.fd, name)?;
                // Older kernels require a privilege for linking by descriptor.
                self.paths.refused(FastPath::EmptyPath, error);
                Ok(())
            }
            linked => linked,
        }
    }

    fn has_room(&self) -> bool {
        match calls::free_space(&self.fd) {
            Ok(mut free) => {
                free.inodes = free.inodes.filter(|_| self.counts_inodes);
                room::has_room(free, self.min_free)
            }
            Err(error) => {
                log::warn!("cannot tell how much space is free: {error}");
                true
            }
        }
    }
}

/// The reason of errors after the directory was removed.
const REMOVED: &str = "the directory was removed while the server used it";

/// Returns N if the name is `N.file` exactly as a server would write it.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".file")?;
    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
}

/// Returns whether the error means that another file has the name.
fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}
