//! A single file that is being received into a directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::directory::{Dir, is_taken};
use super::group::{self, Steps};
use crate::fast_path::FastPath;
use crate::program_log as log;
use crate::sink::{Demand, ERROR_MARKER, SinkFile};
use crate::sys::{self, file as calls};
use crate::tuning::{PIPE_CAPACITY, PREALLOCATE_MAX, PREALLOCATE_MIN};

/// Growth after which a durable file is written back (8 MiB): large enough for efficient writes.
const WRITE_BACK_STEP: u64 = 8 << 20;

/// A file that is being received into a [`DirSink`](super::DirSink); leaves nothing behind when
/// dropped.
#[derive(Debug)]
pub struct DirFile {
    dir: Arc<Dir>,
    pub(super) fd: OwnedFd,
    id: u64,
    /// The final name.
    name: String,
    /// Number of bytes written so far, which is also the position of the descriptor.
    length: u64,
    /// End of the preallocated blocks; never below `length` while `preallocates` is set.
    allocated: u64,
    preallocates: bool,
    /// Number of bytes already written back to the disk, ahead of the commit.
    written_back: u64,
    /// The file's temporary name, on file systems that need one.
    hidden: Option<String>,
}

impl SinkFile for DirFile {
    fn demand(&self) -> Demand<'_> {
        Demand::Descriptor(self.fd.as_fd())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        calls::write_all(&self.fd, bytes)?;
        self.advance(bytes.len() as u64);
        Ok(())
    }

    fn advance(&mut self, count: u64) {
        self.length += count;
        if self.preallocates && self.length + PIPE_CAPACITY as u64 > self.allocated {
            self.preallocate();
        }
        self.write_back();
    }

    fn prepare_review(&mut self) -> io::Result<()> {
        self.prepare()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn reopen(&self) -> Option<OwnedFd> {
        // On other file systems than those of Linux, bytes may still be buffered for this descriptor.
        if self.hidden.is_some() {
            return None;
        }
        let opened = self.dir.reopen(&self.fd)?;
        log::debug!("connection {}: reading the content back for its digest", self.id);
        Some(opened)
    }

    fn commit(&mut self) -> io::Result<()> {
        let dir = Arc::clone(&self.dir);
        if dir.durable {
            let mut results = commit_group(&dir, &mut [self], &|_| true);
            return results.pop().unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
        }
        self.prepare()?;
        self.take_name()
    }

    fn abort(&mut self) -> io::Result<()> {
        // Prefer a small new file: freeing the space of this one may take long, and must wait until
        // the peer has been notified.
        let dir = Arc::clone(&self.dir);
        let marked = dir.mark(self.id, &self.name).or_else(|error| {
            if is_taken(&error) {
                return Err(error);
            }
            log::debug!("connection {}: no file for the marker: {error}", self.id);
            self.mark_in_place()
        });
        self.remove_hidden_name();
        marked
    }
}

/// Commits files together; all of them are on the disk when it returns.
pub(super) fn commit_group(
    dir: &Dir,
    files: &mut [&mut DirFile],
    may_name: &dyn Fn(usize) -> bool,
) -> Vec<io::Result<()>> {
    let count = files.len();
    group::commit(&mut Group { dir, files }, count, may_name)
}

/// The files of a group, each by its index.
pub(super) struct Group<'a, 'f> {
    pub(super) dir: &'a Dir,
    pub(super) files: &'a mut [&'f mut DirFile],
}

impl Steps for Group<'_, '_> {
    fn start(&mut self, index: usize) -> io::Result<()> {
        let file = &mut self.files[index];
        file.trim()?;
        calls::start_writing(&file.fd, 0, file.length);
        Ok(())
    }

    fn sync(&mut self, index: usize) -> io::Result<()> {
        let file = &mut self.files[index];
        file.trim()?;
        calls::sync_data(&file.fd)
    }

    fn name(&mut self, index: usize) -> io::Result<()> {
        self.files[index].publish()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        calls::sync(&self.dir.fd)
    }

    fn take_back(&mut self, index: usize) {
        let file = &self.files[index];
        self.dir.take_back(file.id, &file.name)
    }
}

impl Drop for DirFile {
    fn drop(&mut self) {
        self.remove_hidden_name();
    }
}

impl DirFile {
    /// Opens an empty file, which gets its name when it is published.
    pub(super) fn open(dir: &Arc<Dir>, id: u64, name: String) -> io::Result<DirFile> {
        let preallocates = dir.paths.has(FastPath::Preallocate);
        let (fd, hidden) = dir.open(id)?;
        let dir = Arc::clone(dir);
        let (length, allocated, written_back) = (0, 0, 0);
        let file =
            DirFile { dir, fd, id, name, length, allocated, preallocates, written_back, hidden };
        file.dir.set_mode(&file.fd)?;
        Ok(file)
    }

    fn remove_hidden_name(&mut self) {
        if let Some(name) = self.hidden.take() {
            // Some file systems create a file when it is closed, even if its name was removed
            // before. Errors do not matter for a file that is removed.
            let _ = calls::flush(&self.fd);
            self.dir.remove(&name);
        }
    }

    /// Writes the error marker into an empty file.
    pub(super) fn write_marker(&mut self) -> io::Result<()> {
        calls::write_all(&self.fd, ERROR_MARKER)
    }

    /// Replaces the content by the error marker and publishes the file. This is the last resort on
    /// a full disk: the first block of this file is already allocated.
    fn mark_in_place(&mut self) -> io::Result<()> {
        if self.overwrite().is_err() {
            // The file has no block to overwrite, or the file system never overwrites in place.
            calls::truncate(&self.fd, 0)?;
            self.overwrite()?;
        }
        if self.dir.durable {
            calls::sync_data(&self.fd)?;
        }
        self.publish()
    }

    fn overwrite(&self) -> io::Result<()> {
        calls::rewind(&self.fd)?;
        calls::write_all(&self.fd, ERROR_MARKER)?;
        calls::truncate(&self.fd, ERROR_MARKER.len() as u64)
    }

    /// Releases the preallocated blocks.
    fn trim(&mut self) -> io::Result<()> {
        if self.allocated > self.length {
            calls::truncate(&self.fd, self.length)?;
            self.allocated = self.length;
        }
        Ok(())
    }

    /// Does everything that a commit must do before the file gets its name, unless it is durable.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        self.trim()?;
        self.flush_hidden()
    }

    /// Flushes the file and gives it its final name.
    pub(super) fn publish(&mut self) -> io::Result<()> {
        self.flush_hidden()?;
        self.take_name()
    }

    /// Gives the file its final name.
    pub(super) fn take_name(&mut self) -> io::Result<()> {
        let named = self.dir.publish(&self.fd, &mut self.hidden, &self.name);
        named.inspect_err(|error| {
            if self.hidden.is_none() {
                self.dir.note_unlinked(error);
            }
            self.remove_hidden_name();
        })
    }

    /// Flushes a file with a hidden name: it is not on a local file system of Linux, so its bytes may
    /// still be buffered for this descriptor.
    fn flush_hidden(&self) -> io::Result<()> {
        match self.hidden {
            Some(_) => calls::flush(&self.fd),
            None => Ok(()),
        }
    }

    /// Turns the file into the spare error marker; returns `None` if it has a temporary name.
    pub(super) fn into_spare(mut self) -> io::Result<Option<OwnedFd>> {
        if self.hidden.is_some() {
            return Ok(None);
        }
        self.write_marker()?;
        if self.dir.durable {
            calls::sync_data(&self.fd)?;
        }
        self.fd.try_clone().map(Some)
    }

    /// Writes a durable file back to the disk while it grows, so that little is left to do at the
    /// commit.
    fn write_back(&mut self) {
        if self.dir.durable && self.length >= self.written_back + WRITE_BACK_STEP {
            calls::start_writing(&self.fd, self.written_back, self.length - self.written_back);
            self.written_back = self.length;
        }
    }

    /// Preallocates blocks, at most as many as the file has already.
    fn preallocate(&mut self) {
        if self.length < PREALLOCATE_MIN {
            return;
        }
        let from = self.allocated.max(self.length);
        let step = self.length.min(PREALLOCATE_MAX);
        match calls::preallocate(&self.fd, from, step) {
            Ok(()) => self.allocated = from + step,
            Err(error) => {
                self.preallocates = false;
                if sys::is_unsupported(&error) {
                    self.dir.paths.refused(FastPath::Preallocate, &error);
                }
                // A failed call may keep the blocks that it got; release them now, or in the abort.
                if let Err(error) = calls::truncate(&self.fd, self.length) {
                    log::debug!("cannot release preallocated blocks: {error}");
                }
                self.allocated = self.length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use std::cell::Cell;

    use super::*;
    use crate::connection::Connection;
    use crate::sink::{DirSink, FileSink};

    /// Returns a file with preallocated blocks, if the file system supports them.
    fn preallocated(sink: &DirSink) -> DirFile {
        let mut file = sink.open(&Connection::new(1)).unwrap();
        let mut written = 0;
        while written < 10 << 20 {
            file.write(&[7; 1 << 20]).unwrap();
            written += 1 << 20;
            assert!(file.allocated <= 2 * written + PREALLOCATE_MIN);
        }
        assert!(!file.preallocates || file.allocated > written);
        file
    }

    /// Until it asks for the name, a server that stops can still leave a marker.
    #[test]
    fn a_commit_releases_preallocated_blocks_before_it_asks_for_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        for may_name in [false, true] {
            let mut file = preallocated(&sink);
            let watched = fs::File::from(file.fd.try_clone().unwrap());
            let asked = Cell::new(0);
            let ask = |_| {
                asked.set(asked.get() + 1);
                assert!(blocks(&watched.metadata().unwrap()) <= (10 << 20) + (1 << 20));
                may_name
            };
            let results = sink.commit_all(&mut [&mut file], &ask);
            assert_eq!((results[0].is_ok(), asked.get()), (may_name, 1));
            assert_eq!(dir.path().join("1.file").exists(), may_name);
        }
    }

    fn blocks(metadata: &fs::Metadata) -> u64 {
        use std::os::unix::fs::MetadataExt;
        metadata.blocks() * 512
    }

    #[test]
    fn commit_releases_preallocated_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        preallocated(&sink).commit().unwrap();
        let metadata = fs::metadata(dir.path().join("1.file")).unwrap();
        assert_eq!(metadata.len(), 10 << 20);
        assert!(blocks(&metadata) <= (10 << 20) + (1 << 20), "{}", blocks(&metadata));
    }
}
