//! A sink whose calls wait at a gate.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use accio_proto::{Connection, FileSink, MemorySink, OpenError, SinkFile};

use super::cases::PATIENCE;

/// A gate at which calls of a sink wait until it is opened.
#[derive(Default)]
pub(super) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        let passed = self.opened.wait_timeout_while(open, PATIENCE, |open| !*open);
        drop(passed.unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    pub(super) fn wait_for(&self, count: usize) {
        let started = Instant::now();
        while self.waiting.load(Ordering::SeqCst) < count {
            assert!(
                started.elapsed() < PATIENCE,
                "{} of {count} calls",
                self.waiting.load(Ordering::SeqCst)
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Opens the gate when the test ends, even if it fails, so that the server can stop.
pub(super) struct Held(pub(super) Arc<Gate>);

/// The calls of a sink that wait.
#[derive(Clone, Copy, Default)]
pub(super) struct Slow {
    pub(super) open: bool,
    pub(super) write: bool,
    pub(super) commit: bool,
    /// How long an error marker takes.
    pub(super) abort: Duration,
    /// Freeing a discarded file.
    pub(super) drop: bool,
    /// The announcement of a stop.
    pub(super) stopping: bool,
    /// Whether commits are collected in groups, as in a durable sink.
    pub(super) groups: bool,
}

/// Stores files in memory; the calls selected by `slow` wait at the gate.
pub(super) struct SlowSink {
    memory: MemorySink,
    slow: Slow,
    gate: Arc<Gate>,
    pub(super) groups: Arc<Mutex<Vec<usize>>>,
    /// The threads that wrote error markers.
    pub(super) markers: Arc<Mutex<HashSet<ThreadId>>>,
}

pub(super) struct SlowFile {
    file: <MemorySink as FileSink>::File,
    slow: Slow,
    gate: Arc<Gate>,
    markers: Arc<Mutex<HashSet<ThreadId>>>,
    kept: bool,
}

impl SlowSink {
    pub(super) fn new(memory: &MemorySink, slow: Slow) -> (Self, Held) {
        let gate = Arc::new(Gate::default());
        let held = Held(Arc::clone(&gate));
        let (groups, markers) = Default::default();
        (SlowSink { memory: memory.clone(), slow, gate, groups, markers }, held)
    }
}

impl FileSink for SlowSink {
    type File = SlowFile;

    fn open(&self, connection: &Connection) -> Result<SlowFile, OpenError> {
        if self.slow.open {
            self.gate.pass();
        }
        let (file, gate) = (self.memory.open(connection)?, Arc::clone(&self.gate));
        let markers = Arc::clone(&self.markers);
        Ok(SlowFile { file, slow: self.slow, gate, markers, kept: false })
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.markers.lock().unwrap().insert(thread::current().id());
        thread::sleep(self.slow.abort);
        self.memory.mark(connection)
    }

    fn stopping(&self) {
        if self.slow.stopping {
            self.gate.pass();
        }
    }

    fn commits_in_groups(&self) -> bool {
        self.slow.groups
    }

    fn commit_all(
        &self,
        files: &mut [&mut SlowFile],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        self.groups.lock().unwrap().push(files.len());
        if self.slow.commit {
            self.gate.pass();
        }
        let name = |(index, file): (usize, &mut &mut SlowFile)| match may_name(index) {
            true => {
                file.kept = true;
                file.file.commit()
            }
            false => Err(io::ErrorKind::Interrupted.into()),
        };
        files.iter_mut().enumerate().map(name).collect()
    }
}

impl SinkFile for SlowFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.slow.write && bytes.first() == Some(&b's') {
            self.gate.pass();
        }
        self.file.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        if self.slow.commit {
            self.gate.pass();
        }
        self.kept = true;
        self.file.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        self.markers.lock().unwrap().insert(thread::current().id());
        thread::sleep(self.slow.abort);
        self.file.abort()
    }
}

impl Drop for SlowFile {
    fn drop(&mut self) {
        if self.slow.drop && !self.kept {
            self.gate.pass();
        }
    }
}
