//! Creates the markers of failed connections.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::directory::{Dir, is_taken};
use super::existing::Existing;
use super::file::DirFile;
use super::spare::SharedFile;
use crate::program_log as log;
use crate::sys::file as calls;

impl Dir {
    /// Creates the marker of connection `id`, if possible without waiting for the disk.
    pub(super) fn mark(self: &Arc<Self>, id: u64, name: &str) -> io::Result<()> {
        let fresh = || self.mark_in_fresh_file(id, name);
        let spare = || self.mark_by_spare(name);
        let or_else = |first: &dyn Fn() -> io::Result<()>, second: &dyn Fn() -> io::Result<()>| {
            first().or_else(|error| match self.is_final(&error) {
                true => Err(error),
                false => second().inspect(|()| log::debug!("connection {id}: marker: {error}")),
            })
        };
        // Creating a file takes milliseconds on a busy disk, another name some microseconds. So one
        // thread at a time creates files, and the others do not wait for it.
        let turn = if self.durable { None } else { self.spare.turn() };
        let marked = match turn {
            Some(_turn) => or_else(&fresh, &spare),
            None => or_else(&spare, &fresh),
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

    pub(super) fn mark_by_spare(self: &Arc<Self>, name: &str) -> io::Result<()> {
        let Some(marker) = self.spare.get() else { return Err(io::ErrorKind::NotFound.into()) };
        match self.name_spare(&marker, name) {
            // The file has as many names as the file system allows, or all of its names were
            // removed.
            Err(error) if calls::is_worn_out(&error) => {
                self.renew_spare()?;
                let marker = self.spare.get().ok_or(error)?;
                self.name_spare(&marker, name)
            }
            named => named,
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

    /// Replaces the spare marker by a new one.
    pub(super) fn renew_spare(self: &Arc<Self>) -> io::Result<()> {
        let file = DirFile::open(self, 0, String::new())?;
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
    use std::sync::atomic::Ordering;

    use crate::connection::Connection;
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
