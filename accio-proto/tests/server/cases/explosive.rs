//! Tests of values of the program whose drops panic: values of panics, and causes of errors.

use std::fmt;
use std::panic::resume_unwind;

use super::*;

/// A value whose drop panics with such a value, this number of times. These panics write nothing to
/// stderr.
#[derive(Debug)]
struct Explosive(u32);

impl Drop for Explosive {
    fn drop(&mut self) {
        if let Some(left) = self.0.checked_sub(1) {
            resume_unwind(Box::new(Explosive(left)));
        }
    }
}

impl fmt::Display for Explosive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("explosive")
    }
}

impl std::error::Error for Explosive {}

/// A sink that panics if content begins with `p`, and whose files cannot be aborted.
struct Fragile(MemorySink);

struct FragileFile(<MemorySink as FileSink>::File);

impl FileSink for Fragile {
    type File = FragileFile;

    fn open(&self, connection: &Connection) -> Result<FragileFile, OpenError> {
        self.0.open(connection).map(FragileFile)
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.0.mark(connection)
    }
}

impl SinkFile for FragileFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.starts_with(b"p") {
            resume_unwind(Box::new(Explosive(2)));
        }
        self.0.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        self.0.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        Err(io::Error::other(Explosive(2)))
    }
}

/// Sends content that the server does not store.
fn fails(server: &RunningServer, content: &[u8]) {
    let mut client = server.connect();
    greeted(&mut client);
    send_in_vain(&mut client, content);
    assert!(is_reset(&mut client));
}

#[test]
fn values_of_a_sink_whose_drops_panic_change_no_outcome() {
    let memory = MemorySink::new();
    let server = start(builder(Fragile(memory.clone())).max_size(10).max_per_ip(NonZeroU32::MIN));
    fails(&server, b"content that is too large");
    fails(&server, b"panic");
    upload(&server, b"content");
    let ended = server.outcomes.wait(3);
    let error = |id| ended[&id].error.clone().unwrap();
    assert!(error(1).contains("larger than"), "{}", error(1));
    assert!(error(2).contains("the sink panicked: no message"), "{}", error(2));
    assert_eq!(ended[&3].error, None);
    assert!((1..=2).all(|id| memory.get(id) == Some(Stored::Error)), "{:?}", memory.all());
    assert_eq!(memory.get(3), Some(Stored::Complete(b"content".to_vec())));
    assert_eq!(server.handle.stats().in_service, 0);
    server.stop().unwrap();
}

/// The recorder panics after the client was notified and the place of the connection was freed.
#[test]
fn a_value_of_a_panic_after_the_end_of_a_connection_affects_no_other() {
    let memory = MemorySink::new();
    let builder = builder(memory.clone()).max_connections(2.try_into().unwrap());
    let server = start(builder.recorder(|_, acknowledgement| {
        acknowledgement.send();
        resume_unwind(Box::new(Explosive(2)));
    }));
    (0..10).for_each(|_| upload(&server, b"content"));
    let ended = server.outcomes.wait(10);
    assert!(ended.values().all(|ended| ended.error.is_none()), "{ended:?}");
    assert_eq!(memory.all().len(), 10);
    server.stop().unwrap();
}
