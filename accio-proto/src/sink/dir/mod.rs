//! The sink that keeps connection N as `N.file` in a directory.

mod file;
mod leftovers;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{FileSink, SinkFile};
use crate::fast_path::{FastPath, FastPaths};
use crate::os_error::reason;
use crate::sys::file as calls;
pub use file::DirFile;

/// Keeps the bytes of connection N in `N.file` of one directory.
///
/// A file has no name until it is complete, or holds the [marker](super::ERROR_MARKER) and nothing else; it takes its
/// name in one step, replacing an `N.file` of an earlier run. Names are relative to the
/// directory as it was opened, wherever it is moved, and links in it are never followed. Where the
/// file system has no nameless files, an upload has a hidden name, `.N.file.…`, until then; what a
/// killed process left of those is removed when the directory is opened next.
///
/// A commit outlives the process at once, and a power loss some seconds later, when the system has
/// written the file back; with [`durable`](DirOptions::durable), when the commit returns.
#[derive(Debug, Clone)]
pub struct DirSink {
    dir: Arc<Dir>,
}

#[derive(Debug)]
struct Dir {
    fd: OwnedFd,
    paths: FastPaths,
    durable: bool,
    min_free: u64,
    existing: Existing,
    /// Of the files; `None` is what the process's umask leaves of 0666.
    mode: Option<u32>,
    /// Makes hidden names differ within this process.
    hidden: AtomicU64,
    /// A nameless file that holds the marker. When there is no block, no inode or no descriptor
    /// left for another, connections that fail share this one: a further name costs none of them.
    spare: OnceLock<OwnedFd>,
}

/// How to use a directory; every setting has a default.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct DirOptions {
    paths: FastPaths,
    durable: bool,
    min_free: u64,
    existing: Existing,
    mode: Option<u32>,
}

/// What becomes of a file that has a connection's name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Existing {
    /// The new file takes its place, in one step.
    #[default]
    Replace,
    /// It stays, and the transfer fails: neither its content nor an error marker is kept.
    Keep,
}

/// A directory that cannot be used as a [`DirSink`].
#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}: {}", reason(cause))]
pub struct DirError {
    action: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl DirSink {
    /// Opens the directory at `path` with the default options, creating it and its parents when
    /// missing.
    ///
    /// # Errors
    ///
    /// The directory cannot be created, is none, or files cannot be created in it.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, DirError> {
        DirOptions::default().create(path)
    }

    /// Other options to open a directory with.
    pub fn options() -> DirOptions {
        DirOptions::default()
    }

    /// The highest N of all the `N.file` that are there now.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn highest(&self) -> io::Result<Option<u64>> {
        let mut highest = None;
        for name in calls::names(&self.dir.fd)? {
            highest = highest.max(name?.to_str().ok().and_then(number_of));
        }
        Ok(highest)
    }
}

impl DirOptions {
    /// The fast paths to try: of use are [`FastPath::Tmpfile`], [`FastPath::EmptyPath`] and
    /// [`FastPath::Preallocate`]. All by default.
    pub fn fast_paths(self, paths: FastPaths) -> Self {
        DirOptions { paths, ..self }
    }

    /// Whether a commit or abort returns only when the file and its name are on the disk, to
    /// survive a power loss. Off by default, for it costs some milliseconds each.
    pub fn durable(self, durable: bool) -> Self {
        DirOptions { durable, ..self }
    }

    /// How many bytes of the file system must be free for a new connection to be accepted; 0, the
    /// default, asks nothing.
    pub fn min_free(self, min_free: u64) -> Self {
        DirOptions { min_free, ..self }
    }

    /// What becomes of an `N.file` that is there when connection N ends; replaced by default.
    pub fn existing(self, existing: Existing) -> Self {
        DirOptions { existing, ..self }
    }

    /// The permissions of the files, such as `0o640`, exactly; by default, what the process's
    /// umask leaves of `0o666`. Only the nine bits of reading, writing and executing count.
    pub fn mode(self, mode: u32) -> Self {
        DirOptions { mode: Some(mode & 0o777), ..self }
    }

    /// Opens the directory at `path`, creating it and its parents when missing, and removes the
    /// hidden files that a killed process left there.
    ///
    /// # Errors
    ///
    /// As [`DirSink::create`].
    pub fn create(self, path: impl AsRef<Path>) -> Result<DirSink, DirError> {
        let path = path.as_ref();
        let error = |action| move |cause| DirError { action, path: path.to_owned(), cause };
        let fd = match calls::open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).and_then(|()| calls::open_dir(path))
            }
            opened => opened,
        };
        let fd = fd.map_err(error("cannot use directory"))?;
        leftovers::remove(&fd, path);
        let DirOptions { paths, durable, min_free, existing, mode } = self;
        let hidden = AtomicU64::new(0);
        let spare = OnceLock::new();
        let dir = Dir { fd, paths, durable, min_free, existing, mode, hidden, spare };
        let sink = DirSink { dir: Arc::new(dir) };
        // A first file tells now, not with the first upload, whether the directory takes any.
        let first = sink.open(0).map_err(error("cannot create files in directory"))?;
        if let Some(spare) = first.into_spare() {
            sink.dir.spare.get_or_init(|| spare);
        }
        Ok(sink)
    }
}

impl FileSink for DirSink {
    type File = DirFile;

    fn open(&self, id: u64) -> io::Result<DirFile> {
        DirFile::open(&self.dir, id)
    }

    fn mark(&self, id: u64) -> io::Result<()> {
        self.open(id).and_then(SinkFile::abort).or_else(|error| self.dir.mark_by_spare(id, error))
    }

    fn has_room(&self) -> bool {
        self.dir.has_room()
    }
}

impl AsFd for DirSink {
    /// The directory itself.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.fd.as_fd()
    }
}

impl Dir {
    /// A new empty file, and its hidden name where it must have one.
    fn open(&self, id: u64) -> io::Result<(OwnedFd, Option<String>)> {
        // What the process's umask leaves of it.
        let mode = 0o666;
        if self.paths.has(FastPath::Tmpfile) {
            match calls::open_anonymous(&self.fd, mode) {
                Err(error) if calls::has_no_unnamed_files(&error) => {
                    self.paths.refused(FastPath::Tmpfile, error);
                }
                opened => return opened.map(|fd| (fd, None)),
            }
        }
        loop {
            let name = self.hidden_name(id);
            match calls::create_new(&self.fd, &name, mode) {
                // Left by a process that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|fd| (fd, Some(name))),
            }
        }
    }

    fn hidden_name(&self, id: u64) -> String {
        let count = self.hidden.fetch_add(1, Ordering::Relaxed);
        format!(".{id}.file.{}-{count}", std::process::id())
    }

    /// Gives a file the name of connection `id`, in one step. `hidden` is the name that it has
    /// before that, or has to take on the way.
    fn publish(&self, fd: &OwnedFd, hidden: &mut Option<String>, id: u64) -> io::Result<()> {
        let name = format!("{id}.file");
        if hidden.is_none() {
            match self.link(fd, &name) {
                Ok(()) => return Ok(()),
                // Only a rename replaces atomically, and it needs a name to start from.
                Err(error) if is_taken(&error) && self.existing == Existing::Replace => {
                    let on_the_way = self.hidden_name(id);
                    self.link(fd, &on_the_way)?;
                    *hidden = Some(on_the_way);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(from) = &*hidden else { return Ok(()) };
        match self.existing {
            Existing::Replace => {
                calls::rename(&self.fd, from, &name)?;
                *hidden = None;
            }
            Existing::Keep => {
                // Where the old name is left, it goes when the file is dropped.
                if calls::rename_new(&self.fd, from, &name)? {
                    *hidden = None;
                }
            }
        }
        Ok(())
    }

    /// Gives a nameless file a name that is free.
    fn link(&self, fd: &OwnedFd, name: &str) -> io::Result<()> {
        let linked = self.link_either_way(fd, name);
        // The spare cannot be linked either when all its names were removed.
        let is_spare = self.spare.get().is_some_and(|spare| std::ptr::eq(spare, fd));
        if let Err(error) = &linked
            && calls::cannot_link(error)
            && !is_spare
        {
            // This file is lost, but the next ones need not be: they get a name at once.
            self.paths.refused(FastPath::Tmpfile, error);
        }
        linked
    }

    fn link_either_way(&self, fd: &OwnedFd, name: &str) -> io::Result<()> {
        if !self.paths.has(FastPath::EmptyPath) {
            return calls::link_proc(fd, &self.fd, name);
        }
        match calls::link_empty_path(fd, &self.fd, name) {
            Err(error) if !is_taken(&error) => {
                calls::link_proc(fd, &self.fd, name)?;
                // Older kernels want a privilege for the shorter way.
                self.paths.refused(FastPath::EmptyPath, error);
                Ok(())
            }
            linked => linked,
        }
    }

    /// Keeps the marker for connection `id` when there was no file for it, for `error`.
    fn mark_by_spare(&self, id: u64, error: io::Error) -> io::Result<()> {
        let Some(spare) = self.spare.get() else { return Err(error) };
        let mut hidden = None;
        let published = self.publish(spare, &mut hidden, id);
        if let Some(hidden) = hidden {
            let _ = calls::unlink(&self.fd, &hidden);
        }
        published?;
        log::debug!("connection {id}: the marker shares its file with others: {error}");
        if self.durable { calls::sync(&self.fd) } else { Ok(()) }
    }

    fn has_room(&self) -> bool {
        if self.min_free == 0 {
            return true;
        }
        match calls::free_bytes(&self.fd) {
            Ok(free) => free >= self.min_free,
            Err(error) => {
                log::warn!("cannot tell how much space is free: {error}");
                true
            }
        }
    }
}

/// N, if the name is `N.file` as a server would write it.
fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".file")?;
    digits.parse().ok().filter(|number: &u64| number.to_string() == digits)
}

/// Whether another file has the name.
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

    /// Runs a test with each way to make and name a file.
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
    fn a_commit_shows_the_whole_file_and_nothing_before_it() {
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
    fn an_abort_leaves_the_marker_alone() {
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
    fn an_existing_file_is_replaced_and_a_link_is_not_followed() {
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
    fn an_existing_file_is_kept_where_that_is_asked_for() {
        for without in [&[][..], &[FastPath::EmptyPath], &[FastPath::Tmpfile]] {
            let dir = tempfile::tempdir().unwrap();
            let options = DirSink::options()
                .existing(Existing::Keep)
                .fast_paths(FastPaths::without(without.iter().copied()));
            let sink = options.create(dir.path()).unwrap();
            fs::write(dir.path().join("1.file"), "old").unwrap();
            let mut file = sink.open(1).unwrap();
            file.write(b"new").unwrap();
            assert_eq!(file.commit().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            let error = sink.open(1).unwrap().abort().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            let mut file = sink.open(2).unwrap();
            file.write(b"new").unwrap();
            file.commit().unwrap();
            assert_eq!(names(dir.path()), ["1.file", "2.file"]);
            assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), b"old");
            assert_eq!(fs::read(dir.path().join("2.file")).unwrap(), b"new");
        }
    }

    #[test]
    fn the_mode_is_exact() {
        use std::os::unix::fs::PermissionsExt;
        // 0o666 is more than any usual umask leaves, 0o400 no writable file.
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
    fn the_highest_number_counts_only_what_a_server_would_write() {
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
    fn connections_that_no_file_can_be_made_for_share_a_marker() {
        for durable in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("3.file"), "old").unwrap();
            let sink = DirSink::options().durable(durable).create(dir.path()).unwrap();
            for id in 1..=3 {
                sink.dir.mark_by_spare(id, io::ErrorKind::StorageFull.into()).unwrap();
            }
            assert_eq!(names(dir.path()), ["1.file", "2.file", "3.file"]);
            for name in names(dir.path()) {
                assert_eq!(fs::read(dir.path().join(name)).unwrap(), ERROR_MARKER);
            }
            // The next one that can be made is its own.
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
    fn a_name_that_is_a_directory_fails_the_commit_and_leaves_nothing() {
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
    fn a_directory_that_is_none_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DirSink::create(file.path()).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        assert!(error.ends_with("not a directory"), "{error}");
        DirSink::create(file.path().join("below")).unwrap_err();
        DirSink::create("").unwrap_err();
    }

    #[test]
    fn missing_parents_are_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        DirSink::create(&path).unwrap().open(1).unwrap().commit().unwrap();
        assert_eq!(names(&path), ["1.file"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_but_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let kept = [".7.file", ".7.file.x-1", ".file.1-1", "7.file", ".x.file.1-1", ".7.file.1-"];
        for name in kept.iter().chain(&[".7.file.4242-0", ".1.file.1-17"]) {
            fs::write(dir.path().join(name), "left").unwrap();
        }
        let other = DirSink::create(dir.path()).unwrap();
        let mut kept: Vec<_> = kept.iter().map(|name| name.to_string()).collect();
        kept.sort();
        assert_eq!(names(dir.path()), kept);

        // Another server is there: what looks left may be its upload.
        fs::write(dir.path().join(".8.file.4242-0"), "uploading").unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        assert!(dir.path().join(".8.file.4242-0").exists());
        drop((other, sink));
        DirSink::create(dir.path()).unwrap();
        assert!(!dir.path().join(".8.file.4242-0").exists());
    }

    #[test]
    fn too_little_free_space_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let sink = |min_free| DirSink::options().min_free(min_free).create(dir.path()).unwrap();
        assert!(sink(0).has_room() && sink(1).has_room());
        assert!(!sink(u64::MAX).has_room());
    }
}
