//! Tests of the choice of the threading mode, and of a thread per session.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{
    Connection, CountSink, FileSink, MemoryFile, MemorySink, OpenError, ServerBuilder,
    ServerHandle, SinkFile, Stored, Threading,
};

use crate::builder;

const PATIENCE: Duration = Duration::from_secs(20);

/// A sink that reports that it blocks, and does so until it is released.
struct Slow {
    memory: MemorySink,
    gates: Mutex<mpsc::Sender<mpsc::Sender<()>>>,
}

struct SlowFile {
    file: MemoryFile,
    gate: mpsc::Receiver<()>,
}

impl FileSink for Slow {
    type File = SlowFile;

    fn open(&self, connection: &Connection) -> Result<SlowFile, OpenError> {
        let (open, gate) = mpsc::channel();
        self.gates.lock().unwrap().send(open).unwrap();
        Ok(SlowFile { file: self.memory.open(connection)?, gate })
    }

    fn blocks(&self) -> bool {
        true
    }
}

impl SinkFile for SlowFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _ = self.gate.recv_timeout(PATIENCE);
        self.file.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        self.file.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        self.file.abort()
    }
}

/// Stops the server when the test ends, even if it fails.
struct Stop(ServerHandle);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn threading(builder: ServerBuilder<impl FileSink>) -> Threading {
    builder.bind("127.0.0.1:0").unwrap().threading()
}

#[test]
fn a_blocking_sink_gets_a_thread_per_session_by_default() {
    let slow = || Slow { memory: MemorySink::new(), gates: Mutex::new(mpsc::channel().0) };
    assert_eq!(threading(builder(slow())), Threading::PerSession);
    let asked = builder(CountSink).threading(Threading::PerSession);
    assert_eq!(threading(asked), Threading::PerSession);
    // On systems with an event queue.
    if threading(builder(CountSink)) == Threading::Reactor {
        let asked = builder(slow()).threading(Threading::Reactor);
        assert_eq!(threading(asked), Threading::Reactor);
    }
}

/// Far more sessions than cores are blocked in the sink at once, for longer than the idle timeout,
/// and each continues afterwards.
#[test]
fn sessions_blocked_in_the_sink_delay_no_other_and_are_not_idle() {
    let memory = MemorySink::new();
    let (gates, opened) = mpsc::channel();
    let sink = Slow { memory: memory.clone(), gates: Mutex::new(gates) };
    let idle = Duration::from_secs(1);
    let server = builder(sink).idle_timeout(idle).bind("127.0.0.1:0").unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    thread::scope(|scope| {
        let _stop = Stop(handle.clone());
        let serving = scope.spawn(|| server.run());
        let mut streams: Vec<_> = (0..64)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.read_exact(&mut [0; 7]).unwrap();
                stream.write_all(b"stuck").unwrap();
                stream
            })
            .collect();
        let gates: Vec<_> = (0..64)
            .map(|_| opened.recv_timeout(PATIENCE).expect("all sessions reach the sink"))
            .collect();
        thread::sleep(2 * idle);
        assert_eq!(handle.stats().failed, 0, "a slow server is not idle time of a peer");
        drop(gates);
        let wait = Instant::now();
        // All at once: a session that waits for its turn here would exceed the idle timeout.
        for stream in &streams {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        for stream in &mut streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
        }
        assert!(wait.elapsed() < PATIENCE);
        assert_eq!(memory.all().len(), 64);
        assert!(memory.all().values().all(|file| *file == Stored::Complete(b"stuck".to_vec())));
        handle.stop();
        serving.join().unwrap().unwrap();
    });
}
