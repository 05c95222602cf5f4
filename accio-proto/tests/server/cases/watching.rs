//! Tests of the list of connections in service.

use accio_proto::{ConnectionStatus, Phase};

use super::*;

/// Waits until `is_expected` returns true for a connection, and returns the connection.
fn watch(
    server: &RunningServer,
    id: u64,
    is_expected: impl Fn(&ConnectionStatus) -> bool,
) -> ConnectionStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = server.handle.connections().find(|connection| connection.id == id);
        if let Some(connection) = found.clone().filter(&is_expected) {
            return connection;
        }
        assert!(Instant::now() < end, "{found:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn lists_a_connection_from_its_number_to_its_report() {
    let server = start(builder(CountSink));
    assert_eq!(server.handle.connections().count(), 0);
    let mut stream = server.connect();
    greeted(&mut stream);
    let seen = watch(&server, 1, |_| true);
    assert_eq!(seen.peer, Some(stream.local_addr().unwrap()));
    assert_eq!((seen.dialect, seen.phase, seen.bytes), (None, Phase::Handshake, 0));

    stream.write_all(b"confirm-accio\r\n").unwrap();
    greeted(&mut stream);
    stream.write_all(b"confirm-accio-again\r\n\r\n").unwrap();
    stream.write_all(&[b'x'; 300_000]).unwrap();
    let seen = watch(&server, 1, |seen| seen.bytes == 300_000);
    assert_eq!((seen.dialect, seen.phase), (Some(Dialect::Confirm), Phase::Receiving));
    std::thread::sleep(Duration::from_millis(60));
    let later = watch(&server, 1, |_| true);
    assert!(later.idle >= Duration::from_millis(50) && later.idle < PATIENCE, "{later:?}");
    assert!(later.age > seen.age && later.age >= later.idle, "{later:?}");

    let mut second = server.connect();
    greeted(&mut second);
    watch(&server, 2, |_| true);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
    // The connection was reported before its client was notified.
    let left: Vec<_> = server.handle.connections().map(|connection| connection.id).collect();
    assert_eq!(left, [2]);
    reset(second);
    server.outcomes.wait(2);
    let end = Instant::now() + PATIENCE;
    while server.handle.connections().next().is_some() {
        assert!(Instant::now() < end, "the reset connection is still there");
    }
}

/// A sink whose commits wait until they are released.
struct Held(Arc<(Mutex<bool>, Condvar)>);

struct HeldFile(Arc<(Mutex<bool>, Condvar)>);

impl FileSink for Held {
    type File = HeldFile;

    fn open(&self, _: &Connection) -> Result<HeldFile, OpenError> {
        Ok(HeldFile(Arc::clone(&self.0)))
    }
}

impl SinkFile for HeldFile {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        let (released, changed) = &*self.0;
        let held = |released: &mut bool| !*released;
        let released = released.lock().unwrap();
        drop(changed.wait_timeout_while(released, PATIENCE, held).unwrap());
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread of the first connection is blocked in the sink, which must not delay the list.
#[test]
fn lists_a_connection_during_its_commit() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let server = start(builder(Held(Arc::clone(&gate))).workers(workers(2)));
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(b"content").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let seen = watch(&server, 1, |seen| seen.phase == Phase::Finishing);
    assert_eq!((seen.dialect, seen.bytes), (Some(Dialect::Accio), 7));
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(server.handle.connections().count(), 1);
    }
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
    assert_eq!(server.handle.connections().count(), 0);
}

#[test]
fn the_limits_are_those_of_the_builder() {
    let two = std::num::NonZeroU32::new(2).unwrap();
    let builder = builder(CountSink).dialect(Dialect::Confirm).max_size(9).max_per_ip(two);
    let server = start(builder.idle_timeout(Duration::from_secs(3)).max_connections(workers(5)));
    let limits = server.handle.limits();
    assert_eq!(limits.dialect, Dialect::Confirm.into());
    assert_eq!((limits.max_connections, limits.max_per_ip), (5, Some(two)));
    assert_eq!(limits.transfer.idle_timeout, Duration::from_secs(3));
    assert_eq!((limits.transfer.max_size, limits.transfer.max_duration), (Some(9), None));
}
