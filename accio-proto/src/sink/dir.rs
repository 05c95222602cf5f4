//! The sink that keeps connection N as `N.file` in a directory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::{Demand, ERROR_MARKER, FileSink, SinkFile};
use crate::fast_path::{FastPath, FastPaths};
use crate::limits::{PIPE_CAPACITY, PREALLOCATE_MAX, PREALLOCATE_MIN};
use crate::reason::reason;
use crate::sys::{self, file};

/// Keeps the bytes of connection N in `N.file` of one directory.
///
/// A file has no name until it is complete, or holds [`ERROR_MARKER`] and nothing else; it takes
/// its name in one step, replacing an `N.file` of an earlier run. Names are relative to the
/// directory as it was opened, wherever it is moved, and links in it are never followed. Where the
/// file system has no nameless files, an upload has a hidden name, `.N.file.…`, until then.
#[derive(Debug, Clone)]
pub struct DirSink {
    dir: Arc<Dir>,
}

#[derive(Debug)]
struct Dir {
    fd: OwnedFd,
    paths: FastPaths,
    /// Makes hidden names differ within this process.
    hidden: AtomicU64,
}

/// A file on its way into a [`DirSink`]; dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct DirFile {
    dir: Arc<Dir>,
    fd: OwnedFd,
    id: u64,
    /// Bytes written so far; the descriptor's position.
    length: u64,
    /// Where the preallocated blocks end; never below `length` while `preallocates`.
    allocated: u64,
    preallocates: bool,
    /// The name the file has before its own, where it cannot do without.
    hidden: Option<String>,
}

/// A directory that cannot be used as a [`DirSink`].
#[derive(Debug, thiserror::Error)]
#[error("{action} {path:?}: {}", reason(source))]
pub struct DirError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl DirSink {
    /// Opens the directory at `path`, creating it and its parents when missing.
    ///
    /// # Errors
    ///
    /// The directory cannot be created, is none, or files cannot be created in it.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, DirError> {
        Self::create_with(path, FastPaths::default())
    }

    /// The same with the fast paths given: of use are [`FastPath::Tmpfile`],
    /// [`FastPath::EmptyPath`] and [`FastPath::Preallocate`].
    ///
    /// # Errors
    ///
    /// As [`create`](DirSink::create).
    pub fn create_with(path: impl AsRef<Path>, paths: FastPaths) -> Result<Self, DirError> {
        let path = path.as_ref();
        let error = |action| move |source| DirError { action, path: path.to_owned(), source };
        let fd = match file::open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).and_then(|()| file::open_dir(path))
            }
            opened => opened,
        };
        let fd = fd.map_err(error("cannot use directory"))?;
        let sink = DirSink { dir: Arc::new(Dir { fd, paths, hidden: AtomicU64::new(0) }) };
        // A first file tells now, not with the first upload, whether the directory takes any.
        sink.open(0).map_err(error("cannot create files in directory"))?;
        Ok(sink)
    }
}

impl FileSink for DirSink {
    type File = DirFile;

    fn open(&self, id: u64) -> io::Result<DirFile> {
        let dir = Arc::clone(&self.dir);
        let preallocates = dir.paths.has(FastPath::Preallocate);
        let (fd, hidden) = dir.open(id)?;
        Ok(DirFile { dir, fd, id, length: 0, allocated: 0, preallocates, hidden })
    }
}

impl SinkFile for DirFile {
    fn demand(&self) -> Demand<'_> {
        Demand::Descriptor(self.fd.as_fd())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        file::write_all(&self.fd, bytes)?;
        self.advance(bytes.len() as u64);
        Ok(())
    }

    fn advance(&mut self, count: u64) {
        self.length += count;
        if self.preallocates && self.length + PIPE_CAPACITY as u64 > self.allocated {
            self.preallocate();
        }
    }

    fn commit(mut self) -> io::Result<()> {
        if self.allocated > self.length {
            file::truncate(&self.fd, self.length)?;
        }
        self.publish()
    }

    fn abort(mut self) -> io::Result<()> {
        // The same file: its blocks are free again, so that a full disk has room for five bytes.
        file::truncate(&self.fd, 0)?;
        file::rewind(&self.fd)?;
        file::write_all(&self.fd, ERROR_MARKER)?;
        self.publish()
    }
}

impl Drop for DirFile {
    fn drop(&mut self) {
        if let Some(name) = self.hidden.take()
            && let Err(error) = file::unlink(&self.dir.fd, &name)
        {
            log::warn!("cannot remove {name:?}: {error}");
        }
    }
}

impl Dir {
    /// A new empty file, and its hidden name where it must have one.
    fn open(&self, id: u64) -> io::Result<(OwnedFd, Option<String>)> {
        // What the process's umask leaves of it.
        let mode = Mode::from_raw_mode(0o666);
        if self.paths.has(FastPath::Tmpfile) {
            match file::open_anonymous(&self.fd, mode) {
                Err(error) if has_no_tmpfile(&error) => {
                    self.paths.refused(FastPath::Tmpfile, error);
                }
                opened => return opened.map(|fd| (fd, None)),
            }
        }
        loop {
            let name = self.hidden_name(id);
            match file::create_new(&self.fd, &name, mode) {
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

    /// Gives a nameless file a name that is free.
    fn link(&self, fd: &OwnedFd, name: &str) -> Result<(), Errno> {
        if self.paths.has(FastPath::EmptyPath) {
            match file::link_empty_path(fd, &self.fd, name) {
                Err(error) if error != Errno::EXIST => {
                    // Older kernels refuse it; if the other way fares better, it was that.
                    file::link_proc(fd, &self.fd, name)?;
                    self.paths.refused(FastPath::EmptyPath, error);
                    return Ok(());
                }
                linked => return linked,
            }
        }
        file::link_proc(fd, &self.fd, name)
    }
}

impl DirFile {
    /// Gives the file its name.
    fn publish(&mut self) -> io::Result<()> {
        let name = format!("{}.file", self.id);
        if self.hidden.is_none() {
            match self.dir.link(&self.fd, &name) {
                Ok(()) => return Ok(()),
                // Only a rename replaces atomically, and it needs a name to start from.
                Err(Errno::EXIST) => {
                    let hidden = self.dir.hidden_name(self.id);
                    self.dir.link(&self.fd, &hidden)?;
                    self.hidden = Some(hidden);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(hidden) = &self.hidden {
            file::rename(&self.dir.fd, hidden, &name)?;
            self.hidden = None;
        }
        Ok(())
    }

    /// Takes room ahead, by no more than the file has grown already.
    fn preallocate(&mut self) {
        if self.length < PREALLOCATE_MIN {
            return;
        }
        let from = self.allocated.max(self.length);
        let step = self.length.min(PREALLOCATE_MAX);
        match file::preallocate(&self.fd, from, step) {
            Ok(()) => self.allocated = from + step,
            Err(error) => {
                self.preallocates = false;
                if sys::is_unsupported(&error) {
                    self.dir.paths.refused(FastPath::Preallocate, &error);
                }
                // A failed call may keep blocks it got; they are released now, or by the abort.
                if let Err(error) = file::truncate(&self.fd, self.length) {
                    log::debug!("cannot release preallocated blocks: {error}");
                }
                self.allocated = self.length;
            }
        }
    }
}

/// Whether the file system has no nameless files: some say so, some take the flag for a plain
/// attempt to open the directory for writing.
fn has_no_tmpfile(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT | Errno::NOSYS)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
            let dir = tempfile::tempdir().unwrap();
            let paths = FastPaths::without(without.iter().copied());
            let sink = DirSink::create_with(dir.path(), paths).unwrap();
            test(dir.path(), sink);
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
    fn preallocated_blocks_are_released_at_the_commit() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        let mut file = sink.open(1).unwrap();
        let mut written = 0;
        while written < 10 << 20 {
            file.write(&[7; 1 << 20]).unwrap();
            written += 1 << 20;
            assert!(file.allocated <= 2 * written + PREALLOCATE_MIN);
        }
        assert!(!file.preallocates || file.allocated > written);
        file.commit().unwrap();
        let metadata = fs::metadata(dir.path().join("1.file")).unwrap();
        assert_eq!(metadata.len(), written);
        assert!(metadata.blocks() * 512 <= written + (1 << 20), "{}", metadata.blocks());
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
}
