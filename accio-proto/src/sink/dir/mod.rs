//! A sink that stores connection N as `N.file` in a directory.

mod error;
mod file;
mod group;
#[cfg(test)]
mod group_crash_test;
mod hidden_name;
mod lock;
mod marker;
mod rehearsal;
mod room;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{ERROR_MARKER, FileSink, SinkFile};
use crate::fast_path::{FastPath, FastPaths};
use crate::sys::file as calls;
pub use error::{DirError, DirErrorKind};
pub use file::DirFile;
use hidden_name::HiddenNames;
use marker::Spare;

/// Stores the bytes of connection N as `N.file` in one directory.
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
    existing: Existing,
    exclusive: Exclusive,
    /// The permissions of the files; `None` means 0666 minus the umask.
    mode: Option<u32>,
    hidden_names: HiddenNames,
    /// Whether the log already says that the directory was removed.
    gone_is_logged: AtomicBool,
    spare: Spare,
    /// Whether there may be names of markers that are not on the disk.
    unsynced: AtomicBool,
}

/// Options for using a directory; every option has a default.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DirOptions {
    paths: FastPaths,
    durable: bool,
    min_free: u64,
    existing: Existing,
    mode: Option<u32>,
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
    /// Opens the directory at `path` with the default options, creating it and its parents if
    /// missing.
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

    /// Checks that files can still be stored: that the directory was not removed, that its file
    /// system is not read-only and, on file systems with unnamed files, that a file can be created.
    /// The check is fast enough for a health check.
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
            self.dir.open(0).map_err(error(DirErrorKind::Unusable))?;
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

impl DirOptions {
    /// Sets the fast paths to try; by default all. Those with an effect here are
    /// [`FastPath::Tmpfile`], [`FastPath::EmptyPath`] and [`FastPath::Preallocate`].
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

    fn create_by(self, path: &Path, ways: &[Exclusive]) -> Result<DirSink, DirError> {
        let error = |kind| move |why| DirError::new(kind, "cannot use directory", path, why);
        let fd = match calls::open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_all(path, self.durable).and_then(|()| calls::open_dir(path))
            }
            opened => opened,
        };
        let fd = fd.map_err(error(DirErrorKind::Unusable))?;
        lock::lock(&fd, path, self.existing)
            .map_err(|_| error(DirErrorKind::InUse)(io::Error::other("another server uses it")))?;
        let DirOptions { paths, durable, min_free, existing, mode } = self;
        let mut dir = Dir {
            fd,
            path: path.to_owned(),
            paths,
            durable,
            min_free,
            existing,
            exclusive: Exclusive::Rename,
            mode,
            hidden_names: HiddenNames::default(),
            gone_is_logged: AtomicBool::new(false),
            spare: Spare::default(),
            unsynced: AtomicBool::new(false),
        };
        rehearsal::rehearse(&mut dir, ways)?;
        let sink = DirSink { dir: Arc::new(dir) };
        if sink.dir.paths.has(FastPath::Tmpfile) {
            let first = sink.open(0).map_err(error(DirErrorKind::Unusable))?;
            match first.into_spare() {
                Ok(Some(spare)) => sink.dir.spare.set(spare),
                Ok(None) => {}
                Err(error) => log::warn!("no spare error marker: {error}"),
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

impl FileSink for DirSink {
    type File = DirFile;

    fn open(&self, id: u64) -> io::Result<DirFile> {
        DirFile::open(&self.dir, id)
    }

    fn mark(&self, id: u64) -> io::Result<()> {
        self.dir.mark(id)
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
    /// Creates an empty file; returns it with its hidden name, if it must have one.
    ///
    /// The file never has more permissions than in the end.
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
        if hidden.is_none() {
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
                *hidden = None;
            }
            (Existing::Keep, Exclusive::Rename) => {
                // If the old name remains, it is removed when the file is dropped.
                if calls::rename_new(&self.fd, from, name)? {
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
    /// removes the name, so that no file remains when the peer sees the failure. If that fails too,
    /// the file stays and its commit succeeds.
    fn take_back(&self, id: u64, error: io::Error) -> io::Result<()> {
        match calls::unlink(&self.fd, &name_of(id)) {
            Ok(()) => Err(error),
            Err(_) => {
                log::error!("connection {id}: the file may not survive a power loss: {error}");
                Ok(())
            }
        }
    }

    /// Returns whether the directory was removed. Another directory with the same path does not
    /// count.
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
            Ok(free) => room::has_room(free, self.min_free),
            Err(error) => {
                log::warn!("cannot tell how much space is free: {error}");
                true
            }
        }
    }
}

/// The reason of errors after the directory was removed.
const REMOVED: &str = "the directory was removed while the server used it";

/// Returns the file name for connection N.
fn name_of(id: u64) -> String {
    format!("{id}.file")
}

/// Returns N if the name is `N.file` exactly as a server would write it.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".file")?;
    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
}

/// Returns whether the error means that another file has the name.
fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AlreadyExists
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sink::ERROR_MARKER;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs a test with each way of creating and naming files.
    fn each_way(test: impl Fn(&Path, DirSink)) {
        for without in
            [&[][..], &[FastPath::EmptyPath], &[FastPath::Tmpfile], &[FastPath::Preallocate]]
        {
            let paths = FastPaths::without(without.iter().copied());
            for durable in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let options = DirSink::options().fast_paths(paths.clone()).durable(durable);
                test(dir.path(), options.create(dir.path()).unwrap());
            }
        }
    }

    #[test]
    fn a_file_becomes_visible_only_when_committed() {
        each_way(|dir, sink| {
            let mut file = sink.open(7).unwrap();
            file.write(b"some ").unwrap();
            file.write(b"content").unwrap();
            assert!(names(dir).iter().all(|name| name.starts_with(".7.file.")));
            file.commit().unwrap();
            assert_eq!(names(dir), ["7.file"]);
            assert_eq!(fs::read(dir.join("7.file")).unwrap(), b"some content");
        });
    }

    #[test]
    fn an_abort_leaves_only_the_marker() {
        each_way(|dir, sink| {
            let mut file = sink.open(1).unwrap();
            file.write(&vec![b'x'; 3 << 20]).unwrap();
            file.abort().unwrap();
            sink.open(2).unwrap().abort().unwrap();
            assert_eq!(names(dir), ["1.file", "2.file"]);
            for name in names(dir) {
                assert_eq!(fs::read(dir.join(name)).unwrap(), ERROR_MARKER);
            }
        });
    }

    #[test]
    fn replaces_an_existing_file_and_follows_no_link() {
        each_way(|dir, sink| {
            let outside = tempfile::NamedTempFile::new().unwrap();
            fs::write(dir.join("1.file"), "old").unwrap();
            std::os::unix::fs::symlink(outside.path(), dir.join("2.file")).unwrap();
            for id in [1, 2] {
                let mut file = sink.open(id).unwrap();
                file.write(b"new").unwrap();
                file.commit().unwrap();
            }
            assert_eq!(names(dir), ["1.file", "2.file"]);
            assert_eq!(fs::read(dir.join("1.file")).unwrap(), b"new");
            assert!(fs::symlink_metadata(dir.join("2.file")).unwrap().is_file());
            assert_eq!(fs::read(outside.path()).unwrap(), b"");
        });
    }

    #[test]
    fn keeps_an_existing_file_on_request() {
        let tmpfile = &[FastPath::Tmpfile][..];
        for (without, exclusive) in [
            (&[][..], Exclusive::Rename),
            (&[FastPath::EmptyPath], Exclusive::Rename),
            (tmpfile, Exclusive::Rename),
            (tmpfile, Exclusive::Claim),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let options = DirSink::options()
                .existing(Existing::Keep)
                .fast_paths(FastPaths::without(without.iter().copied()));
            let sink = options.create_by(dir.path(), &[exclusive]).unwrap();
            assert!(names(dir.path()).is_empty(), "the rehearsal leaves nothing");
            fs::write(dir.path().join("1.file"), "old").unwrap();
            let mut file = sink.open(1).unwrap();
            file.write(b"new").unwrap();
            assert_eq!(file.commit().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let mut file = sink.open(1).unwrap();
            assert_eq!(file.abort().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let mut file = sink.open(2).unwrap();
            file.write(b"new").unwrap();
            file.commit().unwrap();
            assert_eq!(names(dir.path()), ["1.file", "2.file"]);
            assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), b"old");
            assert_eq!(fs::read(dir.path().join("2.file")).unwrap(), b"new");
        }
    }

    #[test]
    fn a_directory_is_shared_only_by_servers_that_keep_existing_files() {
        let dir = tempfile::tempdir().unwrap();
        let create = |existing| DirSink::options().existing(existing).create(dir.path());
        for (first, second, is_shared) in [
            (Existing::Replace, Existing::Replace, false),
            (Existing::Replace, Existing::Keep, false),
            (Existing::Keep, Existing::Replace, false),
            (Existing::Keep, Existing::Keep, true),
        ] {
            let sink = create(first).unwrap();
            let clone = sink.clone();
            drop(sink);
            match create(second) {
                Ok(_) => assert!(is_shared, "{first:?} {second:?}"),
                Err(error) => {
                    assert!(!is_shared, "{first:?} {second:?}: {error}");
                    assert_eq!(error.kind(), DirErrorKind::InUse);
                }
            }
            drop(clone);
            assert!(names(dir.path()).is_empty(), "a lock needs no file");
        }
        create(Existing::Replace).unwrap();
    }

    #[test]
    fn planted_names_do_not_make_an_upload_fail() {
        each_way(|dir, sink| {
            for count in 0..100 {
                let planted = format!(".1.file.{}-{count}", std::process::id());
                std::os::unix::fs::symlink("/nowhere", dir.join(planted)).unwrap();
            }
            fs::write(dir.join("1.file"), "old").unwrap();
            let mut file = sink.open(1).unwrap();
            file.write(b"new").unwrap();
            file.commit().unwrap();
            assert_eq!(fs::read(dir.join("1.file")).unwrap(), b"new");
        });
    }

    #[test]
    fn a_file_never_has_more_permissions_than_it_ends_with() {
        for without in [&[][..], &[FastPath::Tmpfile]] {
            let dir = tempfile::tempdir().unwrap();
            let paths = FastPaths::without(without.iter().copied());
            let sink = DirSink::options().mode(0o600).fast_paths(paths).create(dir.path()).unwrap();
            // No permissions have been set yet.
            let (file, hidden) = sink.dir.open(1).unwrap();
            assert_eq!(calls::fstat(&file).unwrap().mode & !0o600, 0);
            if let Some(hidden) = hidden {
                sink.dir.remove(&hidden);
            }
        }
    }

    #[test]
    fn a_file_whose_name_cannot_be_synced_loses_it_before_the_commit_fails() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        sink.open(1).unwrap().commit().unwrap();
        let error = || io::Error::from(io::ErrorKind::InvalidInput);
        assert_eq!(sink.dir.take_back(1, error()).unwrap_err().kind(), error().kind());
        assert!(names(dir.path()).is_empty());
        // If the name cannot be removed, the commit succeeds.
        fs::create_dir(dir.path().join("2.file")).unwrap();
        sink.dir.take_back(2, error()).unwrap();
    }

    #[test]
    fn reports_a_removed_directory_as_the_cause() {
        each_way(|dir, sink| {
            sink.check_ready().unwrap();
            let mut early = sink.open(1).unwrap();
            early.write(b"content").unwrap();
            for name in names(dir) {
                // The hidden name of the upload.
                fs::remove_file(dir.join(name)).unwrap();
            }
            fs::remove_dir(dir).unwrap();
            fs::create_dir(dir).unwrap();
            assert_eq!(early.commit().unwrap_err().to_string(), REMOVED);
            assert_eq!(sink.open(2).unwrap_err().to_string(), REMOVED);
            let error = sink.check_ready().unwrap_err();
            assert_eq!(error.kind(), DirErrorKind::Gone);
            assert!(error.to_string().ends_with(REMOVED), "{error}");
        });
    }

    #[test]
    fn counts_files_that_a_run_would_replace() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        assert_eq!(sink.count_from(1).unwrap(), 0);
        for name in ["1.file", "5.file", "6.file", "07.file", "x"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!([1, 5, 7].map(|first| sink.count_from(first).unwrap()), [3, 2, 0]);
    }

    #[test]
    fn sets_the_exact_mode() {
        use std::os::unix::fs::PermissionsExt;
        // 0o666 is more than usual umasks allow; 0o400 is not writable.
        for mode in [0o666, 0o640, 0o400, 0] {
            for without in [&[][..], &[FastPath::Tmpfile]] {
                let dir = tempfile::tempdir().unwrap();
                let options = DirSink::options()
                    .mode(mode)
                    .fast_paths(FastPaths::without(without.iter().copied()));
                let sink = options.create(dir.path()).unwrap();
                sink.open(1).unwrap().commit().unwrap();
                sink.open(2).unwrap().abort().unwrap();
                for name in ["1.file", "2.file"] {
                    let metadata = fs::metadata(dir.path().join(name)).unwrap();
                    assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
                }
            }
        }
    }

    #[test]
    fn highest_considers_only_names_that_a_server_writes() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        assert_eq!(sink.highest().unwrap(), None);
        for name in ["007.file", "+9.file", "8.files", ".9.file.1-1", "99999999999999999999.file"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(sink.highest().unwrap(), None);
        for name in ["9.file", "10.file"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(sink.highest().unwrap(), Some(10));
    }

    #[test]
    #[cfg_attr(not(linux_sys), ignore = "only Linux has nameless files")]
    fn connections_share_a_marker_if_no_file_can_be_created() {
        for durable in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("3.file"), "old").unwrap();
            let sink = DirSink::options().durable(durable).create(dir.path()).unwrap();
            for id in 1..=3 {
                sink.dir.mark_by_spare(id).unwrap();
            }
            assert_eq!(names(dir.path()), ["1.file", "2.file", "3.file"]);
            for name in names(dir.path()) {
                assert_eq!(fs::read(dir.path().join(name)).unwrap(), ERROR_MARKER);
            }
            if durable {
                continue;
            }
            // The next marker that can be created is a separate file.
            sink.mark(4).unwrap();
            fs::write(dir.path().join("4.file"), "changed").unwrap();
            assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), ERROR_MARKER);
        }
    }

    #[test]
    fn a_dropped_file_leaves_nothing() {
        each_way(|dir, sink| {
            let mut file = sink.open(1).unwrap();
            file.write(b"partial").unwrap();
            drop(file);
            assert!(names(dir).is_empty());
        });
    }

    #[test]
    fn a_directory_with_the_files_name_fails_the_commit() {
        each_way(|dir, sink| {
            fs::create_dir(dir.join("1.file")).unwrap();
            let mut file = sink.open(1).unwrap();
            file.write(b"content").unwrap();
            file.commit().unwrap_err();
            assert_eq!(names(dir), ["1.file"]);
            assert!(dir.join("1.file").is_dir());
        });
    }

    #[test]
    fn rejects_a_path_that_is_not_a_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DirSink::create(file.path()).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        assert!(error.ends_with("not a directory"), "{error}");
        DirSink::create(file.path().join("below")).unwrap_err();
        DirSink::create("").unwrap_err();
    }

    #[test]
    fn creates_missing_parents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        DirSink::create(&path).unwrap().open(1).unwrap().commit().unwrap();
        assert_eq!(names(&path), ["1.file"]);
    }

    #[test]
    fn removes_only_hidden_files_of_killed_processes() {
        let dir = tempfile::tempdir().unwrap();
        let kept = [".7.file", ".7.file.x-1", ".file.1-1", "7.file", ".x.file.1-1", ".7.file.1-"];
        for name in
            kept.iter().chain(&[".7.file.4242-0", ".1.file.1-17", ".1.file.0123456789abcdef"])
        {
            fs::write(dir.path().join(name), "left").unwrap();
        }
        let keep = || DirSink::options().existing(Existing::Keep).create(dir.path());
        let other = keep().unwrap();
        let mut kept: Vec<_> = kept.iter().map(|name| name.to_string()).collect();
        kept.sort();
        assert_eq!(names(dir.path()), kept);

        // Another server is running: an apparent orphan may be its upload.
        fs::write(dir.path().join(".8.file.4242-0"), "uploading").unwrap();
        let sink = keep().unwrap();
        assert!(dir.path().join(".8.file.4242-0").exists());
        drop((other, sink));
        DirSink::create(dir.path()).unwrap();
        assert!(!dir.path().join(".8.file.4242-0").exists());
    }

    #[test]
    fn reports_too_little_free_space() {
        let dir = tempfile::tempdir().unwrap();
        let sink = |min_free| DirSink::options().min_free(min_free).create(dir.path()).unwrap();
        assert!(sink(0).has_room() && sink(1).has_room());
        assert!(!sink(u64::MAX).has_room());
    }
}
