//! Tests that a panic at the end of a connection loses no other connection of its group and no thread.

use std::io;

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

#[test]
fn a_panic_of_the_logger_fails_no_upload_of_a_group() {
    crate::broken_logger::install();
    let memory = MemorySink::new();
    let server = start(builder(Grouped { memory: memory.clone(), drop_panics: false }));
    for id in 1..=4 {
        upload(&server, b"content");
        assert_eq!(memory.get(id), Some(Stored::Complete(b"content".to_vec())));
    }
    assert!(server.outcomes.wait(4).values().all(|ended| ended.error.is_none()));
    server.stop().unwrap();
}

#[cfg(feature = "tracing")]
#[test]
fn a_subscriber_that_panics_in_every_method_changes_nothing_for_a_group() {
    use crate::broken_subscriber::{ALL, ENABLED, NEW_SPAN, REGISTER_CALLSITE, install, panicked};

    let _subscriber = crate::SUBSCRIBER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    install(ALL & !(ENABLED | NEW_SPAN | REGISTER_CALLSITE));
    let memory = MemorySink::new();
    ends_each_connection(builder(Grouped { memory: memory.clone(), drop_panics: false }), &memory);
    assert_ne!(panicked(), 0);
    install(0);
}
