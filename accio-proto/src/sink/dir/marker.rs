//! Error markers, and the spare one for when no file can be made.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Dir, DirFile, is_taken, name_of};
use crate::sys::file as calls;

/// Names of a spare marker after which it is replaced by a fresh one (30,000): ext4 allows 65,000
/// names for one file. The rest is for a disk that is too full for a fresh one.
const RENEW_AFTER: u32 = 30_000;

/// A nameless file that holds the marker, written to the disk.
///
/// When no block, no inode or no descriptor is left for a file of its own, a connection that fails
/// shares this one: a further name costs none of them. In a durable directory every marker does,
/// since its content is on the disk already and the peer need not wait for that.
#[derive(Debug, Default)]
pub(super) struct Spare {
    current: Mutex<Option<Arc<Marker>>>,
    /// The current one has many names.
    is_worn: AtomicBool,
}

#[derive(Debug)]
struct Marker {
    fd: OwnedFd,
    names: AtomicU32,
}

impl Spare {
    /// Makes the file the one that is shared from now on.
    pub(super) fn set(&self, fd: OwnedFd) {
        *self.lock() = Some(Arc::new(Marker { fd, names: AtomicU32::new(0) }));
        self.is_worn.store(false, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Arc<Marker>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Marker>>> {
        // Each change is one assignment, so a panic elsewhere leaves it whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dir {
    /// Keeps the marker for connection `id`, without waiting for the disk where that is possible.
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

    /// Whether no other way to keep the marker can succeed either.
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
            // It has as many names as the file system allows, or all of them were removed.
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

    /// Replaces the spare marker by a fresh one.
    pub(super) fn renew_spare(self: &Arc<Self>) -> io::Result<()> {
        let file = DirFile::open(self, 0)?;
        if let Some(spare) = file.into_spare()? {
            self.spare.set(spare);
        }
        Ok(())
    }

    /// Writes the names of markers to the disk, and replaces the spare one before it wears out.
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

    /// ext4 refuses a name after 65,000; others allow more. Whatever it refuses, a marker is left.
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
