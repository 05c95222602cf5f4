//! Creates the markers of failed connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::directory::{Dir, is_taken};
use super::existing::Existing;
use super::file::DirFile;
use super::spare::SharedFile;
use crate::fast_path::FastPath;
use crate::program_log as log;
use crate::sys::file as calls;

impl Dir {
    /// Creates the marker of connection `id`, if possible without waiting for the disk.
    pub(super) fn mark(self: &Arc<Self>, id: u64, name: &str) -> io::Result<()> {
        let fresh = || self.mark_in_fresh_file(id, name);
        let spare = || self.mark_by_spare(name);
        let note = |error: &io::Error| log::debug!("connection {id}: marker: {error}");
        // Creating a file takes milliseconds on a busy disk, another name some microseconds. So one
        // thread at a time creates files, and the others do not wait for it.
        let turn = if self.durable { None } else { self.spare.turn() };
        let marked = match turn {
            Some(_turn) => fresh().or_else(|error| {
                if self.is_final(&error) || !spare()? {
                    return Err(error);
                }
                note(&error);
                Ok(())
            }),
            None => match spare() {
                Ok(true) => Ok(()),
                Ok(false) => fresh(),
                Err(error) if self.is_final(&error) => Err(error),
                Err(error) => fresh().inspect(|()| note(&error)),
            },
        };
        if marked.is_ok() && self.durable {
            self.unsynced.store(true, Ordering::Relaxed);
        }
        marked
    }

    /// Returns whether every other way to create the marker would fail, too.
    fn is_final(&self, error: &io::Error) -> bool {
        is_taken(error) && self.existing == Existing::Keep
    }

    fn mark_in_fresh_file(self: &Arc<Self>, id: u64, name: &str) -> io::Result<()> {
        let mut file = DirFile::open(self, id, name.to_owned())?;
        file.write_marker()?;
        if self.durable {
            calls::sync_data(&file.fd)?;
        }
        file.publish()
    }

    /// Gives the spare marker another name. Returns false if it is missing and cannot be created.
    pub(super) fn mark_by_spare(self: &Arc<Self>, name: &str) -> io::Result<bool> {
        if self.mark_by_current_spare(name)? {
            return Ok(true);
        }
        self.keep_spare();
        self.mark_by_current_spare(name)
    }

    fn mark_by_current_spare(&self, name: &str) -> io::Result<bool> {
        let Some(marker) = self.spare.get() else { return Ok(false) };
        match self.name_spare(&marker, name) {
            // The file has as many names as the file system allows, or all of its names were
            // removed.
            Err(error) if calls::is_worn_out(&error) => {
                self.spare.is_worn.store(true, Ordering::Relaxed);
                Ok(false)
            }
            named => named.map(|()| true),
        }
    }

    fn name_spare(&self, marker: &SharedFile, name: &str) -> io::Result<()> {
        #[cfg(test)]
        if marker.names.load(Ordering::Relaxed)
            >= self.spare.limits.max_names.load(Ordering::Relaxed)
        {
            return Err(calls::too_many_links());
        }
        let mut hidden = None;
        let published = self.publish(&marker.fd, &mut hidden, name);
        if let Some(hidden) = hidden {
            let _ = calls::unlink(&self.fd, &hidden);
        }
        published?;
        if marker.names.fetch_add(1, Ordering::Relaxed) >= self.spare.renew_after() {
            self.spare.is_worn.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Creates the spare marker if it is missing, and replaces it before it runs out of names. It is
    /// missing if the disk was full when the directory was opened.
    pub(super) fn keep_spare(self: &Arc<Self>) {
        let renew = || {
            if self.paths.has(FastPath::Tmpfile)
                && let Some(spare) = DirFile::open(self, 0, String::new())?.into_spare()?
            {
                self.spare.set(spare);
            }
            Ok(())
        };
        if let Err(error) = self.spare.renew_if_worn(renew) {
            log::debug!("cannot renew the spare error marker: {error}");
        }
    }

    /// Writes the names of markers to the disk, and keeps a spare marker for the next ones.
    pub(super) fn tidy(self: &Arc<Self>) {
        if self.unsynced.swap(false, Ordering::Relaxed)
            && let Err(error) = calls::sync(&self.fd)
        {
            log::warn!("cannot write the names of error markers to the disk: {error}");
        }
        self.keep_spare();
    }
}

#[cfg(test)]
#[cfg(linux_sys)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};
    use std::{fs, io, thread};

    use crate::connection::Connection;
    use crate::fast_path::{FastPath, FastPaths};
    use crate::sink::{DirSink, ERROR_MARKER, FileSink, SinkFile};

    fn markers(dir: &std::path::Path, ids: impl Iterator<Item = u64>) -> Vec<u64> {
        let names = ids.map(|id| {
            let path = dir.join(format!("{id}.file"));
            assert_eq!(fs::read(&path).unwrap(), ERROR_MARKER);
            fs::metadata(&path).unwrap().nlink()
        });
        names.collect()
    }

    /// ext4 refuses further names after 65,000; other file systems allow more. In any case, every
    /// connection gets its marker.
    #[test]
    fn a_spare_marker_never_runs_out_of_names() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::options().durable(true).create(dir.path()).unwrap();
        for id in 1..=65_100 {
            sink.mark(&Connection::new(id)).unwrap();
        }
        markers(dir.path(), [1, 30_000, 60_000, 65_000, 65_001, 65_100].into_iter());
    }

    /// The same on a file system that allows 20 names, with and without a renewal in between.
    #[test]
    fn a_spare_marker_is_renewed_before_its_names_run_out() {
        for (tidies, most) in [(true, 10), (false, 20)] {
            let dir = tempfile::tempdir().unwrap();
            let sink = DirSink::options().durable(true).create(dir.path()).unwrap();
            let limits = &sink.dir.spare.limits;
            limits.renew_after.store(8, Ordering::Relaxed);
            limits.max_names.store(20, Ordering::Relaxed);
            for id in 1..=100 {
                sink.mark(&Connection::new(id)).unwrap();
                if tidies {
                    sink.tidy();
                }
            }
            let names = markers(dir.path(), 1..=100);
            assert!(names.iter().all(|names| *names <= most), "{names:?}");
            assert!(names.iter().any(|names| *names > 5), "they share: {names:?}");
        }
    }

    #[test]
    fn connections_that_fail_while_a_marker_is_created_share_one() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        sink.mark(&Connection::new(1)).unwrap();
        let turn = sink.dir.spare.turn().unwrap();
        (2..=4).for_each(|id| sink.mark(&Connection::new(id)).unwrap());
        drop(turn);
        sink.mark(&Connection::new(5)).unwrap();
        assert_eq!(markers(dir.path(), 1..=5), [1, 3, 3, 3, 1]);
    }

    /// While gigabytes are written back, ext4 takes up to a second to create a file.
    #[test]
    fn a_stop_creates_no_file_for_a_marker() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        sink.mark(&Connection::new(1)).unwrap();
        sink.stopping();
        sink.mark(&Connection::new(2)).unwrap();
        sink.open(&Connection::new(3)).unwrap().abort().unwrap();
        assert_eq!(markers(dir.path(), 1..=3), [1, 2, 2]);
    }

    /// As after an opening on a full disk that has room again, and is full once more at the end.
    #[test]
    fn a_missing_spare_marker_is_created_as_soon_as_possible() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        let shares = |id: u64| sink.dir.mark_by_current_spare(&format!("{id}.file")).unwrap();
        sink.dir.spare.remove();
        assert!(!shares(1));
        // An upload.
        sink.open(&Connection::new(1)).unwrap().commit().unwrap();
        assert!(shares(2));
        sink.dir.spare.remove();
        // A failed transfer.
        sink.mark(&Connection::new(3)).unwrap();
        sink.tidy();
        assert!(shares(4));
        // Its names may have been removed while the disk was full.
        for name in ["2.file", "4.file"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert!(!shares(5));
        sink.open(&Connection::new(5)).unwrap().commit().unwrap();
        assert!(shares(6));
        markers(dir.path(), [3, 6].into_iter());
    }

    #[test]
    fn without_a_spare_marker_a_stop_and_a_durable_sink_create_one_for_all() {
        for durable in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let sink = DirSink::options().durable(durable).create(dir.path()).unwrap();
            sink.dir.spare.remove();
            if !durable {
                sink.stopping();
            }
            (1..=3).for_each(|id| sink.mark(&Connection::new(id)).unwrap());
            assert_eq!(markers(dir.path(), 1..=3), [3, 3, 3]);
        }
    }

    #[test]
    fn a_spare_marker_that_cannot_be_created_is_not_tried_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        let attempts = Cell::new(0);
        let attempt = |result: io::Result<()>| {
            let _ = sink.dir.spare.renew_if_worn(|| {
                attempts.set(attempts.get() + 1);
                result
            });
        };
        attempt(Ok(()));
        assert_eq!(attempts.get(), 0, "it has one");
        sink.dir.spare.remove();
        let start = Instant::now();
        attempt(Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(attempts.get(), 1);
        while attempts.get() == 1 && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(10));
            attempt(Ok(()));
        }
        assert_eq!(attempts.get(), 2);
        assert!(start.elapsed() >= Duration::from_secs(1));
    }

    /// The program logs it, and the journal contains it.
    #[test]
    fn without_a_spare_marker_the_error_is_that_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("1.file")).unwrap();
        let paths = FastPaths::without([FastPath::Tmpfile]);
        let sink = DirSink::options().fast_paths(paths).create(dir.path()).unwrap();
        let error = sink.mark(&Connection::new(1)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory, "{error}");
    }

    /// Programs may choose the same name for several connections.
    #[test]
    fn a_repeated_name_of_the_spare_marker_leaves_no_hidden_name() {
        let dir = tempfile::tempdir().unwrap();
        let options = DirSink::options().durable(true).names(|_| "upload".to_owned());
        let sink = options.create(dir.path()).unwrap();
        (1..=3).for_each(|id| sink.mark(&Connection::new(id)).unwrap());
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["upload"]);
    }

    #[test]
    fn replaces_a_spare_marker_whose_names_were_all_removed() {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::options().durable(true).create(dir.path()).unwrap();
        for id in 1..=3 {
            sink.mark(&Connection::new(id)).unwrap();
            let path = dir.path().join(format!("{id}.file"));
            assert_eq!(fs::read(&path).unwrap(), ERROR_MARKER);
            fs::remove_file(path).unwrap();
        }
    }
}
