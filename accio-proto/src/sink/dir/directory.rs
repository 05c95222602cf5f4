//! The open directory: creates files, and gives them their names in one step.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::existing::Existing;
use super::hidden_name::HiddenNames;
use super::names::Names;
use super::reopening::Reopening;
use super::room;
use super::spare::Spare;
use crate::fast_path::{FastPath, FastPaths};
use crate::program_log as log;
use crate::sink::ERROR_MARKER;
use crate::sys::file as calls;

/// The reason of errors after the directory was removed.
pub(super) const REMOVED: &str = "the directory was removed while the server used it";

#[derive(Debug)]
pub(super) struct Dir {
    /// The lock is held while this descriptor is open.
    pub(super) fd: OwnedFd,
    /// The path as it was given, for messages.
    pub(super) path: PathBuf,
    pub(super) paths: FastPaths,
    pub(super) durable: bool,
    pub(super) min_free: u64,
    /// Whether the file system's number of free inodes can be relied on.
    pub(super) counts_inodes: bool,
    pub(super) existing: Existing,
    /// Whether another server used the directory when this one locked it.
    pub(super) is_shared: bool,
    pub(super) exclusive: Exclusive,
    /// The permissions of the files; `None` means 0666 minus the umask.
    pub(super) mode: Option<u32>,
    pub(super) names: Names,
    pub(super) reopening: Reopening,
    pub(super) hidden_names: HiddenNames,
    /// Whether the log already says that the directory was removed.
    pub(super) gone_is_logged: AtomicBool,
    pub(super) spare: Spare,
    /// Whether there may be names of markers that are not on the disk.
    pub(super) unsynced: AtomicBool,
}

/// How a file with a hidden name is renamed without replacing another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exclusive {
    /// By a rename that does not replace, or by a hard link, whichever the system supports.
    Rename,
    /// By creating the name as an error marker, and then replacing that by a rename.
    Claim,
}

impl Dir {
    /// Creates an empty file; returns it with its hidden name, if it must have one. It never has more
    /// permissions than in the end.
    pub(super) fn open(&self, id: u64) -> io::Result<(OwnedFd, Option<String>)> {
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
    pub(super) fn set_mode(&self, file: &OwnedFd) -> io::Result<()> {
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

    /// Opens a file without a name again, for reading.
    pub(super) fn reopen(&self, file: &OwnedFd) -> Option<OwnedFd> {
        if !self.paths.has(FastPath::ReadBack) {
            return None;
        }
        match self.reopening.open(file.as_fd()) {
            Ok(opened) => Some(opened),
            // This may be different for the next file.
            Err(error) if calls::is_out_of_descriptors(&error) => {
                log::debug!("cannot read content back for its digest: {error}");
                None
            }
            Err(error) => {
                self.paths.refused(FastPath::ReadBack, error);
                None
            }
        }
    }

    /// Gives a file its name in one step. `hidden` is its temporary name; if the file has none but
    /// needs one in between, it is set to the new one.
    pub(super) fn publish(
        &self,
        fd: &OwnedFd,
        hidden: &mut Option<String>,
        name: &str,
    ) -> io::Result<()> {
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

    pub(super) fn remove(&self, name: &str) {
        if let Err(error) = calls::unlink(&self.fd, name) {
            log::warn!("cannot remove {name:?}: {error}");
        }
    }

    /// Handles a failed sync of the directory after the file of connection `id` got its name:
    /// removes the name, so that no file remains when the peer sees the failure.
    pub(super) fn take_back(&self, id: u64, name: &str) {
        if let Err(error) = calls::unlink(&self.fd, name) {
            log::error!(
                "connection {id}: cannot remove the file, which was not confirmed: {error}"
            );
        }
    }

    /// Returns whether the directory was removed, even if its path now names another one.
    pub(super) fn is_removed(&self) -> bool {
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
        let through_proc = || calls::link_proc(fd, &self.fd, name);
        if !self.paths.has(FastPath::EmptyPath) {
            return through_proc();
        }
        let refused = link_by_either(calls::link_empty_path(fd, &self.fd, name), through_proc)?;
        if let Some(error) = refused {
            self.paths.refused(FastPath::EmptyPath, error);
        }
        Ok(())
    }

    /// Handles the failure to give an unnamed file its name. If all of them would fail, that file is lost,
    /// but later ones start with a temporary name.
    pub(super) fn note_unlinked(&self, error: &io::Error) {
        if self.paths.has(FastPath::Tmpfile) && calls::cannot_link(error) && self.takes_names() {
            self.paths.refused(FastPath::Tmpfile, error);
        }
    }

    /// Returns whether a file with a temporary name can be created. Otherwise the directory may have
    /// become read-only, for example, which says nothing about unnamed files.
    fn takes_names(&self) -> bool {
        let create = |name: &str| calls::create_new(&self.fd, name, self.mode.unwrap_or(0o666));
        match self.hidden_names.first_free(0, create) {
            Ok((_, name)) => {
                self.remove(&name);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn has_room(&self) -> bool {
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

/// Links an unnamed file through `/proc` if it could not be linked by its descriptor alone, for which
/// older kernels require a privilege. Returns the error of the descriptor if only `/proc` worked.
fn link_by_either(
    by_descriptor: io::Result<()>,
    through_proc: impl FnOnce() -> io::Result<()>,
) -> io::Result<Option<io::Error>> {
    match by_descriptor {
        Ok(()) => Ok(None),
        Err(first) if calls::cannot_link(&first) => match through_proc() {
            Ok(()) => Ok(Some(first)),
            // There may be no `/proc`, which does not explain the failure.
            Err(second) if second.kind() == io::ErrorKind::NotFound => Err(first),
            Err(second) => Err(second),
        },
        // The disk is full or the name is taken, for example.
        Err(other) => Err(other),
    }
}

/// Returns whether the error means that another file has the name.
pub(super) fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::ErrorKind::{
        AlreadyExists, NotFound, PermissionDenied, QuotaExceeded, StorageFull, TooManyLinks,
        Unsupported,
    };

    use super::*;
    use crate::sink::DirSink;

    #[test]
    fn a_missing_proc_hides_no_error_of_a_full_disk() {
        let link = |by_descriptor: io::ErrorKind, through_proc: Result<(), io::ErrorKind>| {
            let asked = Cell::new(false);
            let linked = link_by_either(Err(errno(by_descriptor)), || {
                asked.set(true);
                through_proc.map_err(errno)
            });
            let kind = |error: io::Error| error.kind();
            (linked.map(|refused| refused.map(kind)).map_err(kind), asked.get())
        };
        for final_error in [StorageFull, QuotaExceeded, TooManyLinks, AlreadyExists] {
            assert_eq!(link(final_error, Err(NotFound)), (Err(final_error), false));
        }
        for (by_descriptor, through_proc, expected) in [
            (NotFound, Ok(()), Ok(Some(NotFound))),
            (Unsupported, Ok(()), Ok(Some(Unsupported))),
            (NotFound, Err(StorageFull), Err(StorageFull)),
            (NotFound, Err(AlreadyExists), Err(AlreadyExists)),
            (NotFound, Err(PermissionDenied), Err(PermissionDenied)),
            (PermissionDenied, Err(NotFound), Err(PermissionDenied)),
            (NotFound, Err(NotFound), Err(NotFound)),
        ] {
            assert_eq!(link(by_descriptor, through_proc), (expected, true));
        }
    }

    /// Returns an error of the system of this kind.
    fn errno(kind: io::ErrorKind) -> io::Error {
        let error = (1..200).map(io::Error::from_raw_os_error).find(|error| error.kind() == kind);
        error.unwrap()
    }

    #[test]
    #[cfg_attr(not(linux_sys), ignore = "only Linux has unnamed files")]
    fn unnamed_files_are_given_up_only_if_others_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("received");
        let sink = DirSink::create(&path).unwrap();
        if !sink.dir.paths.has(FastPath::Tmpfile) {
            return;
        }
        let has_unnamed = |kind| {
            sink.dir.note_unlinked(&errno(kind));
            sink.dir.paths.has(FastPath::Tmpfile)
        };
        assert!(
            has_unnamed(StorageFull) && has_unnamed(QuotaExceeded) && has_unnamed(TooManyLinks)
        );
        // In a removed directory not even root can create a file.
        std::fs::remove_dir(&path).unwrap();
        assert!(has_unnamed(PermissionDenied) && has_unnamed(NotFound));

        let sink = DirSink::create(&path).unwrap();
        sink.dir.note_unlinked(&errno(NotFound));
        assert!(!sink.dir.paths.has(FastPath::Tmpfile), "there is no `/proc`");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
