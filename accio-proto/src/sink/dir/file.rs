//! One file on its way into a directory.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::{Dir, name_of};
use crate::fast_path::FastPath;
use crate::sink::{Demand, ERROR_MARKER, SinkFile};
use crate::sys::{self, file as calls};
use crate::tuning::{PIPE_CAPACITY, PREALLOCATE_MAX, PREALLOCATE_MIN};

/// A file on its way into a [`DirSink`](super::DirSink); dropped, it leaves nothing behind.
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
    }

    fn commit(mut self) -> io::Result<()> {
        if self.allocated > self.length {
            calls::truncate(&self.fd, self.length)?;
        }
        self.publish()
    }

    fn abort(mut self) -> io::Result<()> {
        // Over its first bytes, then cut: on a full disk the file's own first block is sure to be
        // there, while blocks that are given back go to whichever upload asks first.
        if self.mark().is_err() {
            // Nothing of its own to write over, or a file system that always writes elsewhere.
            calls::truncate(&self.fd, 0)?;
            self.mark()?;
        }
        self.publish()
    }
}

impl Drop for DirFile {
    fn drop(&mut self) {
        if let Some(name) = self.hidden.take() {
            // Some file systems create a file when it is closed, even if its name was removed
            // before that. Errors do not matter for a file that goes.
            let _ = calls::flush(&self.fd);
            self.dir.remove(&name);
        }
    }
}

impl DirFile {
    pub(super) fn open(dir: &Arc<Dir>, id: u64) -> io::Result<DirFile> {
        let preallocates = dir.paths.has(FastPath::Preallocate);
        let (fd, hidden) = dir.open(id)?;
        let file =
            DirFile { dir: Arc::clone(dir), fd, id, length: 0, allocated: 0, preallocates, hidden };
        dir.set_mode(&file.fd)?;
        Ok(file)
    }

    /// Makes the error marker all that the file holds.
    fn mark(&self) -> io::Result<()> {
        calls::rewind(&self.fd)?;
        calls::write_all(&self.fd, ERROR_MARKER)?;
        calls::truncate(&self.fd, ERROR_MARKER.len() as u64)
    }

    /// Gives the file its name; with a durable directory, both are on the disk afterwards.
    fn publish(&mut self) -> io::Result<()> {
        if self.hidden.is_some() {
            // Not a local file system of Linux, so the bytes may not even have left this process.
            calls::flush(&self.fd)?;
        }
        if self.dir.durable {
            // Before the name, or a power loss could leave a name with nothing behind it. Should
            // it fail it is not tried again: the kernel has forgotten which bytes were lost.
            calls::sync_data(&self.fd)?;
        }
        self.dir.publish(&self.fd, &mut self.hidden, &name_of(self.id))?;
        if !self.dir.durable {
            return Ok(());
        }
        calls::sync(&self.dir.fd).or_else(|error| self.dir.take_back(self.id, error))
    }

    /// Makes it the file that stands in for markers; `None` when it has a name, or no room.
    pub(super) fn into_spare(self) -> Option<OwnedFd> {
        if self.hidden.is_some() {
            return None;
        }
        let ready = self
            .mark()
            .and_then(|()| if self.dir.durable { calls::sync_data(&self.fd) } else { Ok(()) });
        match ready.and_then(|()| self.fd.try_clone()) {
            Ok(spare) => Some(spare),
            Err(error) => {
                log::warn!("no spare error marker: {error}");
                None
            }
        }
    }

    /// Takes room ahead, by no more than the file has grown already.
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
                // A failed call may keep blocks it got; they are released now, or by the abort.
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

    use super::*;
    use crate::sink::{DirSink, FileSink};

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
}
