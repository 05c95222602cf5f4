//! Error markers, and the spare marker for when no file can be created.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Dir, DirFile, is_taken, name_of};
use crate::sys::file as calls;

/// Number of names after which a spare marker is replaced (30,000). ext4 allows 65,000 names per
/// file; the margin is for a disk that is too full for a replacement.
const RENEW_AFTER: u32 = 30_000;

/// An unnamed file that contains the marker, already written to the disk.
///
/// If no block, inode or descriptor is left for a new file, failed connections share this one:
/// another name for it needs none of these. In a durable directory every marker is a name of this
/// file, because its content is on the disk already, so the peer need not wait for that.
#[derive(Debug, Default)]
pub(super) struct Spare {
    current: Mutex<Option<Arc<Marker>>>,
    /// Whether the current file has many names and needs a replacement.
    is_worn: AtomicBool,
}

#[derive(Debug)]
struct Marker {
    fd: OwnedFd,
    names: AtomicU32,
}

impl Spare {
    /// Makes this file the shared one from now on.
    pub(super) fn set(&self, fd: OwnedFd) {
        *self.lock() = Some(Arc::new(Marker { fd, names: AtomicU32::new(0) }));
        self.is_worn.store(false, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Arc<Marker>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Marker>>> {
        // Each change is one assignment, so the state is consistent even if another thread panics.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dir {
    /// Creates the marker of connection `id`, if possible without waiting for the disk.
    pub(super) fn mark(self: &Arc<Self>, id: u64) -> io::Result<()> {
        let fresh = || self.mark_in_fresh_file(id);
        let spare = || self.mark_by_spare(id);
        let marked = if self.durable {
            spare().or_else(|error| if self.is_final(&error) { Err(error) } else { fresh() })
        } else {
            fresh().or_else(|error| {
                if self.is_final(&error) {
                    return Err(error);
                }
                spare().inspect(|()| {
                    log::debug!("connection {id}: the marker shares its file with others: {error}");
                })
            })
        };
        if marked.is_ok() && self.durable {
            self.unsynced.store(true, Ordering::Relaxed);
        }
        marked
    }

    /// Returns whether every other way to create the marker would fail, too.
    fn is_final(&self, error: &io::Error) -> bool {
        is_taken(error) && self.existing == super::Existing::Keep
    }

    fn mark_in_fresh_file(self: &Arc<Self>, id: u64) -> io::Result<()> {
        let mut file = DirFile::open(self, id)?;
        file.write_marker()?;
        if self.durable {
            calls::sync_data(&file.fd)?;
        }
        file.publish()
    }

    pub(super) fn mark_by_spare(self: &Arc<Self>, id: u64) -> io::Result<()> {
        let Some(marker) = self.spare.get() else { return Err(io::ErrorKind::NotFound.into()) };
        match self.name_spare(&marker, id) {
            // The file has as many names as the file system allows, or all of its names were
            // removed.
            Err(error) if calls::is_worn_out(&error) => {
                self.renew_spare()?;
                let marker = self.spare.get().ok_or(error)?;
                self.name_spare(&marker, id)
            }
            named => named,
        }
    }

    fn name_spare(&self, marker: &Marker, id: u64) -> io::Result<()> {
        let mut hidden = None;
        let published = self.publish(&marker.fd, &mut hidden, &name_of(id));
        if let Some(hidden) = hidden {
            let _ = calls::unlink(&self.fd, &hidden);
        }
        published?;
        if marker.names.fetch_add(1, Ordering::Relaxed) >= RENEW_AFTER {
            self.spare.is_worn.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Replaces the spare marker by a new one.
    pub(super) fn renew_spare(self: &Arc<Self>) -> io::Result<()> {
        let file = DirFile::open(self, 0)?;
        if let Some(spare) = file.into_spare()? {
            self.spare.set(spare);
        }
        Ok(())
    }

    /// Writes the names of markers to the disk, and replaces the spare marker before it runs out of
    /// names.
    pub(super) fn tidy(self: &Arc<Self>) {
        if self.unsynced.swap(false, Ordering::Relaxed)
            && let Err(error) = calls::sync(&self.fd)
        {
            log::warn!("cannot write the names of error markers to the disk: {error}");
        }
        if self.spare.is_worn.load(Ordering::Relaxed)
            && let Err(error) = self.renew_spare()
        {
            log::debug!("cannot renew the spare error marker: {error}");
        }
    }
}

#[cfg(test)]
#[cfg(linux_sys)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use crate::sink::{DirSink, ERROR_MARKER, FileSink};

    /// ext4 refuses further names after 65,000; other file systems allow more. In any case, every
    /// connection gets its marker.
    #[test]
    fn a_spare_marker_never_runs_out_of_names() {
        for tidies in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let sink = DirSink::options().durable(true).create(dir.path()).unwrap();
            for id in 1..=65_100 {
                sink.mark(id).unwrap();
                if tidies && id % 1000 == 0 {
                    sink.tidy();
                }
            }
            for id in [1, 30_000, 60_000, 65_000, 65_100] {
                let path = dir.path().join(format!("{id}.file"));
                assert_eq!(fs::read(&path).unwrap(), ERROR_MARKER);
                let names = fs::metadata(&path).unwrap().nlink();
                assert!(!tidies || names < 40_000, "{names} names");
            }
        }
    }

    #[test]
    fn a_spare_marker_whose_names_were_all_removed_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::options().durable(true).create(dir.path()).unwrap();
        for id in 1..=3 {
            sink.mark(id).unwrap();
            let path = dir.path().join(format!("{id}.file"));
            assert_eq!(fs::read(&path).unwrap(), ERROR_MARKER);
            fs::remove_file(path).unwrap();
        }
    }
}
