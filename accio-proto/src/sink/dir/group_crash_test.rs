//! Group commits of real files that stop after any of their steps, as when the machine loses power
//! or the process is killed. Checks the content of the directory and which files were confirmed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::file::Group;
use super::group::{self, Steps};
use super::hidden_name::is_hidden_name;
use super::{DirFile, DirSink, Existing, FileSink};
use crate::connection::Connection;
use crate::fast_path::{FastPath, FastPaths};
use crate::sink::SinkFile;

const FILES: u64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Start(usize),
    Sync(usize),
    Name(usize),
    SyncNames,
    TakeBack(usize),
}

/// Passes steps on to the real files and records them. After `left` steps, every further step fails
/// without any effect.
struct Cut<'a, S> {
    steps: S,
    left: usize,
    calls: &'a RefCell<Vec<Call>>,
}

impl<S: Steps> Cut<'_, S> {
    fn pass<T>(&mut self, call: Call, step: impl FnOnce(&mut S) -> io::Result<T>) -> io::Result<T> {
        if self.left == 0 {
            return Err(io::Error::other("the power is off"));
        }
        self.left -= 1;
        let done = step(&mut self.steps)?;
        self.calls.borrow_mut().push(call);
        Ok(done)
    }
}

impl<S: Steps> Steps for Cut<'_, S> {
    fn start(&mut self, index: usize) -> io::Result<()> {
        self.pass(Call::Start(index), |steps| steps.start(index))
    }

    fn sync(&mut self, index: usize) -> io::Result<()> {
        self.pass(Call::Sync(index), |steps| steps.sync(index))
    }

    fn name(&mut self, index: usize) -> io::Result<()> {
        self.pass(Call::Name(index), |steps| steps.name(index))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.pass(Call::SyncNames, |steps| steps.sync_names())
    }

    fn take_back(&mut self, index: usize) {
        let _ = self.pass(Call::TakeBack(index), |steps| {
            steps.take_back(index);
            Ok(())
        });
    }
}

fn content(id: u64) -> Vec<u8> {
    let length = 600_000 * id as usize;
    // It repeats after 256 bytes; calculating each byte takes seconds without optimization.
    let mut bytes =
        (0..256).map(|index| (index * id) as u8).collect::<Vec<_>>().repeat(length / 256 + 1);
    bytes.truncate(length);
    bytes
}

fn read_all(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    });
    entries.filter(|(name, _)| !is_hidden_name(name)).collect()
}

/// Commits [`FILES`] files in one group, to the end or until `left` steps were taken.
fn commit_until(sink: &DirSink, left: usize) -> (Vec<io::Result<()>>, Vec<Call>) {
    let mut files: Vec<DirFile> =
        (1..=FILES).map(|id| sink.open(&Connection::new(id)).unwrap()).collect();
    for (id, file) in (1..).zip(&mut files) {
        file.write(&content(id)).unwrap();
    }
    let calls = RefCell::new(Vec::new());
    let results = {
        let mut members: Vec<&mut DirFile> = files.iter_mut().collect();
        let group = Group { dir: &sink.dir, files: &mut members };
        group::commit(&mut Cut { steps: group, left, calls: &calls }, FILES as usize, &|_| true)
    };
    // Without power, no destructor runs.
    files.into_iter().for_each(std::mem::forget);
    (results, calls.into_inner())
}

#[test]
fn an_interrupted_group_leaves_complete_files_and_confirms_none() {
    for without in [&[][..], &[FastPath::EmptyPath], &[FastPath::Tmpfile]] {
        for is_replaced in [false, true] {
            let mut left = 0;
            loop {
                let dir = tempfile::tempdir().unwrap();
                let paths = FastPaths::without(without.iter().copied());
                let options = DirSink::options().fast_paths(paths).durable(true);
                let sink = options.existing(Existing::Replace).create(dir.path()).unwrap();
                if is_replaced {
                    for id in 1..=FILES {
                        fs::write(dir.path().join(format!("{id}.file")), "old").unwrap();
                    }
                }
                let (results, calls) = commit_until(&sink, left);
                let is_whole = results.iter().all(Result::is_ok);
                let names = read_all(dir.path());
                for id in 1..=FILES {
                    let named = calls.contains(&Call::Name(id as usize - 1));
                    let expected = match (named, is_replaced) {
                        (true, _) => Some(content(id)),
                        (false, true) => Some(b"old".to_vec()),
                        (false, false) => None,
                    };
                    assert_eq!(names.get(&format!("{id}.file")), expected.as_ref(), "{calls:?}");
                }
                assert!(names.len() <= FILES as usize);
                // The steps of every group are in this order, so a name never comes before the data
                // of any member.
                assert!(calls.is_sorted(), "{calls:?}");
                if is_whole {
                    assert_eq!(calls.len(), 3 * FILES as usize + 1);
                    break;
                }
                assert!(results.iter().all(Result::is_err), "confirmed too early: {calls:?}");
                assert_eq!(calls.len(), left, "each step before the cut was taken");
                left += 1;
            }
        }
    }
}
