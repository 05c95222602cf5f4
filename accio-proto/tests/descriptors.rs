//! Tests with a low limit on descriptors, which is a limit of the whole process: a program of their own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{
    Abort, Connection, Demand, DirSink, FastPath, FastPaths, FileSink, OpenError, Server, SinkFile,
    Threading,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bound on every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// Locked by each test, because the limit is the same for all threads.
static ALONE: Mutex<()> = Mutex::new(());

/// Sets the limit; descriptors with higher numbers stay open.
fn limit_descriptors(count: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(count), maximum }).unwrap();
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A sink whose files have a descriptor each. Content that is spliced blocks the thread: it goes into a
/// full socket.
struct Stuck {
    full: Arc<UnixStream>,
    opened: Arc<AtomicUsize>,
}

impl Stuck {
    /// Returns the sink, and the other side of the socket.
    fn new() -> (Self, UnixStream) {
        let (mut full, other) = UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.write(&[0; 64 << 10]).is_ok() {}
        full.set_nonblocking(false).unwrap();
        (Stuck { full: Arc::new(full), opened: Arc::default() }, other)
    }
}

struct StuckFile {
    _file: File,
    full: Arc<UnixStream>,
}

impl FileSink for Stuck {
    type File = StuckFile;

    fn open(&self, _: &Connection) -> Result<StuckFile, OpenError> {
        let file = File::open("/dev/null")?;
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(StuckFile { _file: file, full: Arc::clone(&self.full) })
    }

    fn mark(&self, _: &Connection) -> io::Result<()> {
        Ok(())
    }
}

impl SinkFile for StuckFile {
    fn demand(&self) -> Demand<'_> {
        Demand::Descriptor(self.full.as_fd())
    }

    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads that are blocked have pipes, and there may be more of them than cores.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "only Linux splices")]
fn every_accepted_connection_can_open_its_file() {
    const LIMIT: u64 = 300;
    /// Fewer than the backlog of a listener of the standard library.
    const CLIENTS: usize = 120;
    const STUCK: usize = 64;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for threading in [Threading::Reactor, Threading::PerSession] {
        limit_descriptors(LIMIT + 1000);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The sockets of the clients must not take descriptors from the server.
        let connect = |_| {
            let stream = TcpStream::connect(address).unwrap();
            let moved = rustix::io::fcntl_dupfd_cloexec(&stream, LIMIT as i32).unwrap();
            TcpStream::from(moved)
        };
        let mut clients: Vec<_> = (0..CLIENTS).map(connect).collect();
        limit_descriptors(LIMIT);

        let (sink, mut other) = Stuck::new();
        let opened = Arc::clone(&sink.opened);
        let failures = Arc::new(Mutex::new(Vec::new()));
        let failed = Arc::clone(&failures);
        let server = Server::builder(sink)
            .threading(threading)
            .workers(STUCK.try_into().unwrap())
            .max_per_ip(1000.try_into().unwrap())
            .idle_timeout(PATIENCE)
            .on_outcome(move |outcome| {
                failed.lock().unwrap().extend(outcome.result.as_ref().err().map(Abort::to_string));
            })
            .listen(listener)
            .unwrap();
        let handle = server.handle();
        let max = handle.limits().max_connections;
        assert!((STUCK..CLIENTS).contains(&max), "{max}");
        let serving = thread::spawn(move || server.run());
        // The others wait in the backlog.
        let _waiting = clients.split_off(max);
        for client in &mut clients {
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            client.read_exact(&mut [0; 7]).unwrap();
        }
        // Each file is open before any thread is blocked.
        let (blocking, others) = clients.split_at_mut(STUCK);
        blocking.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
        wait_until("the first files are open", || opened.load(Ordering::SeqCst) == STUCK);
        // Nothing shows whether a thread is blocked. Only content that follows a full buffer is spliced.
        for _ in 0..5 {
            for client in &mut *blocking {
                client.set_nonblocking(true).unwrap();
                let _ = client.write(&[b'x'; 256 << 10]);
                client.set_nonblocking(false).unwrap();
            }
            thread::sleep(Duration::from_millis(100));
        }
        others.iter_mut().for_each(|client| client.write_all(b"x").unwrap());
        let all_open = || opened.load(Ordering::SeqCst) == max || handle.stats().failed > 0;
        wait_until("all files are open", all_open);
        let failures = failures.lock().unwrap().clone();
        assert_eq!(failures, [""; 0], "{threading:?}");

        let reading = thread::spawn(move || io::copy(&mut other, &mut io::sink()).unwrap());
        for client in &mut clients {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
        }
        assert_eq!(handle.stats().completed, max as u64);
        handle.stop();
        serving.join().unwrap().unwrap();
        reading.join().unwrap();
    }
}

/// The bytes of a file with a hidden name may be written only when a descriptor is closed.
#[test]
fn a_commit_needs_no_descriptor() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Rlimit { current, .. } = getrlimit(Resource::Nofile);
    let dir = tempfile::tempdir().unwrap();
    let paths = FastPaths::without([FastPath::Tmpfile]);
    let sink = DirSink::options().fast_paths(paths).create(dir.path()).unwrap();
    let mut file = sink.open(&Connection::new(1)).unwrap();
    file.write(b"content").unwrap();
    // All of these are in use.
    limit_descriptors(4);
    let committed = file.commit();
    limit_descriptors(current.unwrap_or(1024));
    committed.unwrap();
    assert_eq!(std::fs::read(dir.path().join("1.file")).unwrap(), b"content");
}
