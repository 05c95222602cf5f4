//! Tests of slow sinks, and of sinks that depend on the connection.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A sink that calls a function for each write, by connection number.
#[derive(Clone)]
pub(super) struct HookedSink {
    memory: MemorySink,
    on_write: Arc<dyn Fn(u64) + Send + Sync>,
    /// How often the server has announced its stop.
    pub(super) stops: Arc<AtomicU32>,
    pub(super) on_stop: Arc<dyn Fn() + Send + Sync>,
}

pub(super) struct HookedFile {
    id: u64,
    file: <MemorySink as FileSink>::File,
    on_write: Arc<dyn Fn(u64) + Send + Sync>,
}

impl HookedSink {
    pub(super) fn new(memory: &MemorySink, on_write: impl Fn(u64) + Send + Sync + 'static) -> Self {
        let (memory, stops) = (memory.clone(), Arc::default());
        HookedSink { memory, on_write: Arc::new(on_write), stops, on_stop: Arc::new(|| ()) }
    }
}

impl FileSink for HookedSink {
    type File = HookedFile;

    fn open(&self, connection: &Connection) -> Result<HookedFile, OpenError> {
        let (id, file) = (connection.id, self.memory.open(connection)?);
        Ok(HookedFile { id, file, on_write: Arc::clone(&self.on_write) })
    }

    fn stopping(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
        (self.on_stop)();
    }
}

impl SinkFile for HookedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (self.on_write)(self.id);
        self.file.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        self.file.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        self.file.abort()
    }
}

#[test]
fn a_sink_that_blocks_for_one_connection_delays_no_other() {
    let memory = MemorySink::new();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let sink = HookedSink::new(&memory, move |id| {
        if id == 1 {
            let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        }
    });
    let server = start(builder(sink).workers(workers(2)));
    let mut blocked = server.connect();
    greeted(&mut blocked);
    blocked.write_all(b"slow").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let started = Instant::now();
    for _ in 0..40 {
        upload(&server, b"quick");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(memory.get(1), None);
    drop(blocked);
    drop(release);
    server.outcomes.wait(41);
    assert_eq!(memory.get(1), Some(Stored::Complete(b"slow".to_vec())));
}

/// Time spent in a slow sink does not count as idle time, which starts when the server receives
/// again.
#[test]
fn time_in_the_sink_is_not_idle_time() {
    let idle = Duration::from_millis(500);
    let memory = MemorySink::new();
    let first = std::sync::atomic::AtomicBool::new(true);
    let sink = HookedSink::new(&memory, move |_| {
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(900));
        }
    });
    let server = start(builder(sink).idle_timeout(idle).workers(workers(2)));
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(b"first ").unwrap();
    std::thread::sleep(Duration::from_millis(1150));
    stream.write_all(b"second").unwrap();
    drop(stream);
    server.outcomes.wait(1);
    assert_eq!(memory.get(1), Some(Stored::Complete(b"first second".to_vec())));
}

/// Records the connections for which it opens or marks a file, and rejects every second one.
#[derive(Clone, Default)]
struct Choosy {
    memory: MemorySink,
    opened: Arc<Mutex<Vec<Connection>>>,
    marked: Arc<Mutex<Vec<Connection>>>,
}

impl FileSink for Choosy {
    type File = <MemorySink as FileSink>::File;

    fn open(&self, connection: &Connection) -> Result<Self::File, OpenError> {
        self.opened.lock().unwrap().push(connection.clone());
        match connection.id % 2 {
            0 => Err(OpenError::rejected("its address has used up its quota")),
            _ => self.memory.open(connection),
        }
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.marked.lock().unwrap().push(connection.clone());
        self.memory.mark(connection)
    }
}

#[test]
fn a_sink_knows_its_connection_and_may_reject_it() {
    let sink = Choosy::default();
    let before = std::time::SystemTime::now();
    let server = start(builder(sink.clone()));
    upload(&server, b"kept");
    let mut clients = Vec::new();
    for content in [&b"rejected"[..], b""] {
        let mut client = server.connect();
        clients.push(client.local_addr().unwrap());
        greeted(&mut client);
        send_in_vain(&mut client, content);
        assert_eq!(is_reset(&mut client), !content.is_empty());
    }
    let ended = server.outcomes.wait(3);
    assert_eq!(ended[&1].error, None);
    let why = "rejected: its address has used up its quota";
    assert_eq!(ended[&2].error.as_deref(), Some(why));
    assert_eq!(ended[&3].error, None);
    assert_eq!(sink.memory.get(2), Some(Stored::Error));
    let opened = sink.opened.lock().unwrap().clone();
    let marked = sink.marked.lock().unwrap().clone();
    assert_eq!(marked, [opened[1].clone()], "the mark has the same description");
    for (connection, client) in opened[1..].iter().zip(clients) {
        assert_eq!(connection.peer, Some(client));
        assert_eq!(connection.local, Some(server.address));
        assert_eq!(connection.dialect, Some(Dialect::Accio));
        assert_eq!(connection.identity, None);
        assert!(connection.accepted >= before);
        assert!(connection.accepted <= std::time::SystemTime::now());
    }
}

#[test]
fn local_addresses_are_determined_unless_they_are_switched_off() {
    for wanted in [true, false] {
        let sink = Choosy::default();
        let server = start(builder(sink.clone()).local_addresses(wanted));
        upload(&server, b"content");
        server.outcomes.wait(1);
        let local = sink.opened.lock().unwrap()[0].local;
        assert_eq!(local, wanted.then_some(server.address));
    }
}

/// A sink that panics when it is asked for room, and when it may tidy up.
struct Nervous(MemorySink);

impl FileSink for Nervous {
    type File = <MemorySink as FileSink>::File;

    fn open(&self, connection: &Connection) -> Result<Self::File, OpenError> {
        self.0.open(connection)
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.0.mark(connection)
    }

    fn has_room(&self) -> bool {
        std::panic::resume_unwind(Box::new("asked for room"))
    }

    fn tidy(&self) {
        std::panic::resume_unwind(Box::new("asked to tidy up"))
    }
}

#[test]
fn a_sink_that_panics_outside_of_connections_gets_files_anyway() {
    let memory = MemorySink::new();
    let server = start(builder(Nervous(memory.clone())));
    for _ in 0..3 {
        upload(&server, b"content");
        upload_and_reset(&server, b"part");
    }
    server.outcomes.wait(6);
    upload(&server, b"content");
    let stored = memory.all();
    let complete = stored.values().filter(|stored| **stored != Stored::Error).count();
    assert_eq!((stored.len(), complete), (7, 4), "{stored:?}");
    server.stop().unwrap();
}
