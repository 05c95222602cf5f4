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

/// A subscriber that panics when it records an upload of 4321 bytes, while it is broken. No other test
/// uploads as many bytes.
#[cfg(feature = "tracing")]
mod broken_subscriber {
    use std::fmt::Debug;
    use std::sync::Once;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    pub(super) struct BrokenSubscriber;

    pub(super) static IS_BROKEN: AtomicBool = AtomicBool::new(false);

    struct Panicking;

    impl Visit for Panicking {
        fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

        fn record_u64(&mut self, _: &Field, value: u64) {
            assert!(value != 4321 || !IS_BROKEN.load(Ordering::SeqCst), "the subscriber panics");
        }
    }

    impl Subscriber for BrokenSubscriber {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.name() == "connection"
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut Panicking);
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    pub(super) fn install() {
        static INSTALL: Once = Once::new();
        let install = || tracing::subscriber::set_global_default(BrokenSubscriber).unwrap();
        INSTALL.call_once(install);
    }
}

#[cfg(feature = "tracing")]
#[test]
fn a_panic_in_a_report_fails_only_the_upload_that_is_reported() {
    use std::io::Write;
    use std::net::Shutdown;
    use std::sync::atomic::Ordering;

    broken_subscriber::install();
    let memory = MemorySink::new();
    let server = start(builder(Grouped { memory: memory.clone(), drop_panics: false }));
    broken_subscriber::IS_BROKEN.store(true, Ordering::SeqCst);
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
    broken_subscriber::IS_BROKEN.store(false, Ordering::SeqCst);
    upload(&server, &[7; 4321]);
    assert_eq!(memory.get(5), Some(Stored::Complete(vec![7; 4321])));
    server.stop().unwrap();
}
