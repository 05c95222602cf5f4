//! Tests that a panic at the end of a connection loses no other connection of its group and no thread.

use std::io;
use std::io::Write;
use std::net::Shutdown;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use super::builder;
use super::cases::*;
use accio_proto::{Connection, FileSink, MemoryFile, MemorySink, OpenError, SinkFile, Stored};

/// A sink in memory that commits in groups. The drops of its committed files panic if `drop_panics`.
struct Grouped {
    memory: MemorySink,
    drop_panics: bool,
}

struct GroupedFile {
    file: MemoryFile,
    drop_panics: bool,
}

impl FileSink for Grouped {
    type File = GroupedFile;

    fn open(&self, connection: &Connection) -> Result<GroupedFile, OpenError> {
        Ok(GroupedFile { file: self.memory.open(connection)?, drop_panics: self.drop_panics })
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.memory.mark(connection)
    }

    fn commits_in_groups(&self) -> bool {
        true
    }
}

impl SinkFile for GroupedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        self.file.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        self.file.abort()
    }
}

impl Drop for GroupedFile {
    fn drop(&mut self) {
        assert!(!self.drop_panics, "the drop panics");
    }
}

#[test]
fn a_panic_while_a_committed_file_is_dropped_fails_no_upload() {
    let memory = MemorySink::new();
    let server = start(builder(Grouped { memory: memory.clone(), drop_panics: true }));
    (0..3).for_each(|_| upload(&server, b"content"));
    assert!(server.outcomes.wait(3).values().all(|ended| ended.error.is_none()));
    for id in 1..=3 {
        assert_eq!(memory.get(id), Some(Stored::Complete(b"content".to_vec())));
    }
    server.stop().unwrap();
}

/// A logger that panics when an upload of 4321 bytes is reported, while it is broken. No other test
/// uploads as many bytes.
struct BrokenLogger;

static IS_BROKEN: AtomicBool = AtomicBool::new(false);

impl log::Log for BrokenLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let text = record.args().to_string();
        let is_ours = text.contains(": 4321 bytes from") || text.contains("lost to a bug");
        assert!(!(is_ours && IS_BROKEN.load(Ordering::SeqCst)), "the logger panics");
    }

    fn flush(&self) {}
}

#[test]
fn a_panic_of_the_logger_fails_only_the_upload_that_it_logs() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| log::set_logger(&BrokenLogger).unwrap());
    log::set_max_level(log::LevelFilter::Info);
    let memory = MemorySink::new();
    let server = start(builder(Grouped { memory: memory.clone(), drop_panics: false }));
    IS_BROKEN.store(true, Ordering::SeqCst);
    for id in 1..=4 {
        let mut lost = server.connect();
        greeted(&mut lost);
        lost.write_all(&[7; 4321]).unwrap();
        lost.shutdown(Shutdown::Write).unwrap();
        assert!(is_reset(&mut lost));
        let ended = server.outcomes.wait(id);
        assert!(ended[&(id as u64)].error.is_some(), "{ended:?}");
        assert_eq!(memory.get(id as u64), Some(Stored::Error));
    }
    IS_BROKEN.store(false, Ordering::SeqCst);
    upload(&server, &[7; 4321]);
    assert_eq!(memory.get(5), Some(Stored::Complete(vec![7; 4321])));
    server.stop().unwrap();
}
