//! Tests that a panic at the end of a connection loses no other connection of its group and no thread.

use std::io;
use std::num::NonZeroU32;

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

/// A subscriber that panics for some connections, each in another call. No other test has their numbers.
#[cfg(feature = "tracing")]
mod broken_subscriber {
    use std::fmt::Debug;
    use std::sync::Once;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    pub(super) struct BrokenSubscriber;

    pub(super) const PANICS_IN_NEW_SPAN: u64 = 4321;
    const PANICS_IN_RECORD: u64 = 4322;
    pub(super) const PANICS_IN_ENTER: u64 = 4323;

    /// Finds the number of a connection.
    struct Number(u64);

    impl Visit for Number {
        fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}

        fn record_u64(&mut self, _: &Field, value: u64) {
            self.0 = value;
        }
    }

    fn panic_for(number: u64, span: &Id) {
        assert!(span.into_u64() != number, "the subscriber panics");
    }

    impl Subscriber for BrokenSubscriber {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.name() == "connection"
        }

        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            let mut number = Number(0);
            attributes.record(&mut number);
            let span = Id::from_u64(number.0);
            panic_for(PANICS_IN_NEW_SPAN, &span);
            span
        }

        fn record(&self, span: &Id, _: &Record<'_>) {
            panic_for(PANICS_IN_RECORD, span);
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {}

        fn enter(&self, span: &Id) {
            panic_for(PANICS_IN_ENTER, span);
        }

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
fn a_subscriber_that_panics_fails_at_most_the_upload_whose_span_it_enters() {
    use broken_subscriber::{PANICS_IN_ENTER, PANICS_IN_NEW_SPAN};

    broken_subscriber::install();
    let memory = MemorySink::new();
    let sink = Grouped { memory: memory.clone(), drop_panics: false };
    let server = builder(sink).first_id(PANICS_IN_NEW_SPAN).max_per_ip(NonZeroU32::MIN);
    let server = start(server);
    let ids = PANICS_IN_NEW_SPAN..=PANICS_IN_ENTER + 1;
    for (count, id) in (1..).zip(ids.clone()) {
        let expected = if id == PANICS_IN_ENTER {
            let mut failing = server.connect();
            greeted(&mut failing);
            send_in_vain(&mut failing, b"content");
            assert!(is_reset(&mut failing));
            Stored::Error
        } else {
            upload(&server, b"content");
            Stored::Complete(b"content".to_vec())
        };
        // After a panic, the client sees the reset before the marker is stored.
        server.outcomes.wait(count);
        assert_eq!(memory.get(id), Some(expected), "connection {id}");
    }
    for (id, ended) in server.outcomes.wait(ids.count()) {
        assert_eq!(ended.error.is_some(), id == PANICS_IN_ENTER, "{ended:?}");
    }
    assert_eq!(server.handle.stats().in_service, 0);
    assert_eq!(server.handle.connections().count(), 0);
    server.stop().unwrap();
}
