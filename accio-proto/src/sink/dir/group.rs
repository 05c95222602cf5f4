//! Durable commits in groups.
//!
//! A file is durable once its data, then its name, then the directory are on the disk. Taking each
//! step for all files of a group lets them share the journal commits of the file system: write-back
//! of all files is started first, so that the first `fdatasync` also writes the others.

use std::io;

/// The steps of a commit, each for the file with this index in the group.
pub(super) trait Steps {
    /// Starts writing the data to the disk, without waiting for it.
    fn start(&mut self, index: usize) -> io::Result<()>;
    /// Waits until the data is on the disk.
    fn sync(&mut self, index: usize) -> io::Result<()>;
    /// Gives the file its name.
    fn name(&mut self, index: usize) -> io::Result<()>;
    /// Writes the names of all files to the disk.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Removes the name of a file that may not be on the disk, as far as that is possible.
    fn take_back(&mut self, index: usize);
}

/// Commits `count` files; calls `may_name` for each file right before it gets its name.
pub(super) fn commit(
    steps: &mut impl Steps,
    count: usize,
    may_name: &dyn Fn(usize) -> bool,
) -> Vec<io::Result<()>> {
    let mut results: Vec<io::Result<()>> = Vec::with_capacity(count);
    // A single file gains nothing from an early start.
    results.extend((0..count).map(|index| if count > 1 { steps.start(index) } else { Ok(()) }));
    // A failed sync is not retried: the kernel no longer knows which bytes were lost.
    for_each_ok(&mut results, |index| steps.sync(index));
    for_each_ok(&mut results, |index| match may_name(index) {
        true => steps.name(index),
        false => Err(io::ErrorKind::Interrupted.into()),
    });
    if results.iter().any(Result::is_ok)
        && let Err(error) = steps.sync_names()
    {
        // Even a file whose name remains has failed: its peer must not rely on it.
        for_each_ok(&mut results, |index| {
            steps.take_back(index);
            Err(io::Error::new(error.kind(), error.to_string()))
        });
    }
    results
}

/// Takes the next step for each file that has not failed.
fn for_each_ok(results: &mut [io::Result<()>], mut step: impl FnMut(usize) -> io::Result<()>) {
    for (index, result) in results.iter_mut().enumerate() {
        if result.is_ok() {
            *result = step(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that loses everything that was not synced at a power loss.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    struct Disk {
        /// For each file: whether its data is durable, whether it has a name, whether the name is
        /// durable.
        files: Vec<(bool, bool, bool)>,
    }

    /// The commit of a group in which one call fails, and the power is lost after some number of
    /// calls.
    struct Run {
        disk: Disk,
        calls: usize,
        fails_at: Option<Fails>,
        /// The number of calls before the power loss, and the disk at that moment.
        lost_at: Option<usize>,
        lost: Option<Disk>,
    }

    /// The calls that fail.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fails {
        Once(usize),
        /// This call and all later ones fail, as on a broken disk.
        From(usize),
    }

    /// Every way to fail in a group that takes so many calls, and none.
    fn each_failure(calls: usize) -> impl Iterator<Item = Option<Fails>> {
        let once = (0..calls).map(|call| Some(Fails::Once(call)));
        once.chain((0..calls).map(|call| Some(Fails::From(call)))).chain([None])
    }

    impl Run {
        fn call(&mut self) -> io::Result<()> {
            if self.lost_at == Some(self.calls) {
                self.lost = Some(self.disk.clone());
            }
            self.calls += 1;
            let fails = match self.fails_at {
                Some(Fails::Once(call)) => call + 1 == self.calls,
                Some(Fails::From(call)) => call < self.calls,
                None => false,
            };
            match fails {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl Steps for Run {
        fn start(&mut self, _: usize) -> io::Result<()> {
            self.call()
        }

        fn sync(&mut self, index: usize) -> io::Result<()> {
            self.call()?;
            self.disk.files[index].0 = true;
            Ok(())
        }

        fn name(&mut self, index: usize) -> io::Result<()> {
            self.call()?;
            self.disk.files[index].1 = true;
            Ok(())
        }

        fn sync_names(&mut self) -> io::Result<()> {
            self.call()?;
            self.disk.files.iter_mut().for_each(|file| file.2 = file.1);
            Ok(())
        }

        fn take_back(&mut self, index: usize) {
            if self.call().is_ok() {
                self.disk.files[index].1 = false;
            }
        }
    }

    fn run(
        count: usize,
        fails_at: Option<Fails>,
        lost_at: Option<usize>,
        denied: Option<usize>,
    ) -> (Vec<bool>, Run) {
        let disk = Disk { files: vec![(false, false, false); count] };
        let mut run = Run { disk, calls: 0, fails_at, lost_at, lost: None };
        let results = commit(&mut run, count, &|index| denied != Some(index));
        (results.into_iter().map(|result| result.is_ok()).collect(), run)
    }

    #[test]
    fn a_power_loss_at_any_point_leaves_no_name_without_data() {
        for count in 1..=4 {
            let (_, whole) = run(count, None, None, None);
            for lost_at in 0..whole.calls {
                for fails_at in each_failure(whole.calls) {
                    let (_, run) = run(count, fails_at, Some(lost_at), None);
                    let Some(lost) = run.lost else { continue };
                    // No file was confirmed yet, because the group had not returned. Its name may
                    // reach the disk at any time, so the data must have been there before.
                    for (data, named, _) in lost.files {
                        assert!(!named || data, "a name before its data: {count} {lost_at}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_file_is_confirmed_only_when_data_and_name_are_durable() {
        for count in 1..=4 {
            let (_, whole) = run(count, None, None, None);
            for fails_at in each_failure(whole.calls + 1) {
                for denied in (0..count).map(Some).chain([None]) {
                    let (confirmed, run) = run(count, fails_at, None, denied);
                    for (index, (data, named, durable)) in run.disk.files.into_iter().enumerate() {
                        assert!(!confirmed[index] || (data && named && durable), "{index}");
                        // Only a broken disk keeps a name that should go.
                        let is_broken = matches!(fails_at, Some(Fails::From(_)));
                        assert!(confirmed[index] || !named || is_broken, "a name is left");
                        assert!(denied != Some(index) || (!confirmed[index] && !named));
                    }
                }
            }
        }
    }

    #[test]
    fn one_failure_fails_one_file_unless_the_directory_sync_fails() {
        let (_, whole) = run(3, None, None, None);
        for fails_at in 0..whole.calls {
            let (confirmed, _) = run(3, Some(Fails::Once(fails_at)), None, None);
            let failed = confirmed.iter().filter(|confirmed| !**confirmed).count();
            assert_eq!(failed, if fails_at == whole.calls - 1 { 3 } else { 1 }, "{fails_at}");
        }
    }
}
