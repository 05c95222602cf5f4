//! A discarded file counts against the connection limit until it is closed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use accio_proto::{
    Connection, FileSink, MemoryFile, MemorySink, OpenError, ServerConfig, ServerHandle, SinkFile,
};
use tokio::net::TcpListener;

use crate::PATIENCE;

/// A sink whose files cannot be dropped while the lock is held.
struct Slow(MemorySink, Arc<Mutex<()>>);

struct SlowFile(MemoryFile, Arc<Mutex<()>>);

impl FileSink for Slow {
    type File = SlowFile;

    fn open(&self, connection: &Connection) -> Result<SlowFile, OpenError> {
        Ok(SlowFile(self.0.open(connection)?, Arc::clone(&self.1)))
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.0.mark(connection)
    }
}

impl SinkFile for SlowFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        self.0.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        self.0.abort()
    }
}

impl Drop for SlowFile {
    fn drop(&mut self) {
        drop(self.1.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn wait_until(handle: &ServerHandle, condition: impl Fn(&ServerHandle) -> bool) {
    let started = Instant::now();
    while !condition(handle) {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_discarded_file_keeps_the_place_of_its_connection() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lock = Arc::new(Mutex::new(()));
    let sink = Slow(MemorySink::new(), Arc::clone(&lock));
    let server = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = ServerConfig::default();
        config.max_connections = Some(1.try_into().unwrap());
        accio_tokio::serve(listener, sink, config).unwrap()
    });
    let (address, handle) = (server.local_addr(), server.handle());
    let held = lock.lock().unwrap();

    let mut first = TcpStream::connect(address).unwrap();
    first.read_exact(&mut [0; 7]).unwrap();
    first.write_all(b"half").unwrap();
    wait_until(&handle, |handle| handle.connections().any(|connection| connection.bytes == 4));
    socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first);
    wait_until(&handle, |handle| handle.stats().failed == 1);

    let mut next = TcpStream::connect(address).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let waiting = next.read_exact(&mut [0; 7]).unwrap_err();
    assert!(matches!(waiting.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{waiting}");
    drop(held);
    next.set_read_timeout(Some(PATIENCE)).unwrap();
    next.read_exact(&mut [0; 7]).unwrap();
    runtime.block_on(server.stop()).unwrap();
}
