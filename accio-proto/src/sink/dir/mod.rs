//! A sink that stores connection N as `N.file` in a directory.

mod directory;
mod error;
mod existing;
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
mod reopening;
mod room;
mod spare;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use super::{FileSink, OpenError};
use crate::connection::Connection;
use crate::fast_path::FastPath;
use crate::sys::file as calls;
use directory::{Dir, REMOVED};
pub use error::{DirError, DirErrorKind};
pub use existing::Existing;
pub use file::DirFile;
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
        let file = DirFile::open(&self.dir, connection.id, name)?;
        // The disk, full when the directory was opened, may have room only until this upload fills it.
        self.dir.keep_spare();
        Ok(file)
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
        let commit = |(index, file): (usize, &mut &mut DirFile)| {
            // On a slow disk this takes long, and a stop may still end the connection with a marker.
            file.prepare()?;
            match may_name(index) {
                true => file.take_name(),
                false => Err(io::ErrorKind::Interrupted.into()),
            }
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

/// Returns N if the name is `N.file` exactly as a server would write it.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".file")?;
    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
}
