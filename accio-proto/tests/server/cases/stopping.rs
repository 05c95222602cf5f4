//! Tests of stopping, draining and panics: every connection is reported.

use super::sinks::HookedSink;
use super::*;

#[test]
fn stopping_aborts_and_reports_unfinished_transfers() {
    let sink = MemorySink::new();
    let server = start(builder(sink.clone()));
    upload(&server, b"done");
    let mut streams: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for stream in &mut streams {
        greeted(stream);
        stream.write_all(b"not done").unwrap();
    }
    let (address, outcomes) = (server.address, Arc::clone(&server.outcomes));
    let started = Instant::now();
    server.stop().unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
    let ended = outcomes.wait(51);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"done".to_vec())));
    for id in 2..=51 {
        assert_eq!(sink.get(id), Some(Stored::Error));
        assert_eq!(ended[&id].error.as_deref(), Some("the server was stopped"));
    }
    assert!(streams.iter_mut().all(is_reset));
    assert!(TcpStream::connect(address).is_err());
}

/// A sink can then store the markers in the fastest way.
#[test]
fn a_stop_is_announced_to_the_sink() {
    let sink = HookedSink::new(&MemorySink::new(), |_| ());
    let stops = Arc::clone(&sink.stops);
    let server = start(builder(sink));
    upload(&server, b"done");
    assert_eq!(stops.load(std::sync::atomic::Ordering::SeqCst), 0);
    server.stop().unwrap();
    assert_eq!(stops.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// Counts the files and markers of the first four connections; later ones only check whether the server
/// listens.
fn ended(memory: &MemorySink) -> usize {
    (1..=4).filter(|id| memory.get(*id).is_some()).count()
}

#[test]
fn a_stop_after_a_drain_is_announced_before_the_first_marker() {
    let memory = MemorySink::new();
    let stops = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut sink = HookedSink::new(&memory, |_| ());
    sink.on_stop = {
        let (memory, stops) = (memory.clone(), Arc::clone(&stops));
        Arc::new(move || stops.lock().unwrap().push(ended(&memory)))
    };
    let server = start(builder(sink));
    let mut streams: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for stream in &mut streams {
        greeted(stream);
        stream.write_all(b"not done").unwrap();
    }
    server.handle.drain();
    let started = Instant::now();
    while TcpStream::connect(server.address).is_ok() {
        assert!(started.elapsed() < PATIENCE, "it still listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.stop().unwrap();
    assert_eq!(ended(&memory), 4);
    assert_eq!(*stops.lock().unwrap(), [0], "announced once, before any marker");
}

/// Sessions that a worker is serving when the server stops end like the parked ones.
#[test]
fn stopping_during_busy_transfers_reports_each_of_them() {
    for round in 0..60 {
        let sink = MemorySink::new();
        let server = start(builder(sink.clone()).workers(workers(4)));
        let mut streams: Vec<_> = (0..6).map(|_| server.connect()).collect();
        streams.iter_mut().for_each(greeted);
        std::thread::scope(|scope| {
            for mut stream in streams {
                scope.spawn(move || while stream.write_all(&[7; 20_000]).is_ok() {});
            }
            std::thread::sleep(Duration::from_micros(500 + 37 * round));
            let outcomes = Arc::clone(&server.outcomes);
            server.stop().unwrap();
            let ended = outcomes.reported.lock().unwrap();
            assert!(ended.keys().copied().eq(1..=6), "round {round}: {ended:?}");
        });
        assert_eq!(sink.all().len(), 6);
    }
}

/// A panic during a busy transfer ends that transfer; the others continue.
#[test]
fn a_panic_during_busy_transfers_ends_no_other() {
    for round in 0..30 {
        let memory = MemorySink::new();
        let writes = std::sync::atomic::AtomicU32::new(0);
        // An asynchronous sink may get all of the content in two writes.
        let most = if IS_ASYNCHRONOUS { round % 2 } else { 2 + round };
        let sink = HookedSink::new(&memory, move |id| {
            let write = writes.fetch_add(u32::from(id == 6), std::sync::atomic::Ordering::SeqCst);
            assert!(id != 6 || write < most, "the sink panics");
        });
        let server = start(builder(sink).workers(workers(4)));
        let mut streams: Vec<_> = (0..6).map(|_| server.connect()).collect();
        streams.iter_mut().for_each(greeted);
        std::thread::scope(|scope| {
            for (id, mut stream) in (1..).zip(streams) {
                scope.spawn(move || {
                    // The sixth connection is reset before it has sent everything.
                    let sent = (0..100).try_for_each(|_| stream.write_all(&[7; 20_000]));
                    if id < 6 {
                        sent.unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
                    } else {
                        let _ = stream.shutdown(Shutdown::Write);
                        assert!(sent.is_err() || is_reset(&mut stream));
                    }
                });
            }
        });
        let ended = server.outcomes.wait(6);
        let error = ended[&6].error.as_deref().unwrap();
        assert!(error.contains("the sink panics"), "{error}");
        for id in 1..6 {
            assert_eq!(memory.get(id), Some(Stored::Complete(vec![7; 2_000_000])), "{id}");
        }
        assert_eq!(memory.get(6), Some(Stored::Error));
        server.stop().unwrap();
    }
}

/// A sink whose calls panic, depending on the number: in `open`, `write`, `commit`, or in `abort`
/// and `mark` too.
struct Panicking(MemorySink);

struct PanickingFile(u64, <MemorySink as FileSink>::File);

impl FileSink for Panicking {
    type File = PanickingFile;

    fn open(&self, connection: &Connection) -> Result<PanickingFile, OpenError> {
        let id = connection.id;
        assert!(id != 1, "open panics");
        Ok(PanickingFile(id, self.0.open(connection)?))
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        assert!(connection.id != 4, "mark panics");
        self.0.mark(connection)
    }
}

impl SinkFile for PanickingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(self.0 != 2, "write panics");
        self.1.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        assert!(self.0 != 3 && self.0 != 4, "commit panics");
        self.1.commit()
    }

    fn abort(&mut self) -> io::Result<()> {
        assert!(self.0 != 4, "abort panics");
        self.1.abort()
    }
}

#[test]
fn a_panic_of_the_sink_fails_one_connection() {
    let memory = MemorySink::new();
    let server = start(builder(Panicking(memory.clone())).workers(workers(1)));
    let mut idle: Vec<_> = (0..4).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(greeted);
    let mut waiting = server.connect();
    greeted(&mut waiting);
    for mut stream in idle {
        send_in_vain(&mut stream, b"content");
        assert!(is_reset(&mut stream));
    }
    waiting.write_all(b"content").unwrap();
    waiting.shutdown(Shutdown::Write).unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
    let ended = server.outcomes.wait(5);
    for (id, call) in [(1, "open"), (2, "write"), (3, "commit"), (4, "commit")] {
        let error = ended[&id].error.as_deref().unwrap();
        assert!(error.contains(&format!("{call} panics")), "{error}");
        let marked = memory.get(id) == Some(Stored::Error);
        assert_eq!((marked, ended[&id].unmarked), (id != 4, id == 4), "{id}");
    }
    assert_eq!(memory.get(5), Some(Stored::Complete(b"content".to_vec())));
    server.stop().unwrap();
}

#[test]
fn a_panic_of_the_observer_ends_no_connection() {
    let builder = builder(CountSink).threading(THREADING);
    let builder = builder.on_outcome(|_| panic!("the observer panics"));
    let server = run(builder.bind("127.0.0.1:0").unwrap(), Arc::default());
    for _ in 0..3 {
        upload(&server, b"content");
    }
    assert_eq!(server.handle.stats().completed, 3);
    server.stop().unwrap();
}

#[test]
fn a_server_that_is_never_run_refuses_connections_once_dropped() {
    let server = builder(CountSink).threading(THREADING).bind("127.0.0.1:0").unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let mut stream = TcpStream::connect(address).unwrap();
    drop(server);
    assert!(is_reset(&mut stream));
    assert!(TcpStream::connect(address).is_err());
    handle.stop();
}

#[test]
fn draining_finishes_connections_in_service_and_accepts_no_others() {
    let sink = MemorySink::new();
    let mut server = start(builder(sink.clone()).max_connections(workers(8)));
    let mut streams: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for stream in &mut streams {
        greeted(stream);
        stream.write_all(b"first half, ").unwrap();
    }
    server.handle.drain();
    let started = Instant::now();
    while TcpStream::connect(server.address).is_ok() {
        assert!(started.elapsed() < PATIENCE, "it still listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    for mut stream in streams {
        stream.write_all(b"second half").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
    }
    server.join().unwrap().unwrap();
    let stats = server.handle.stats();
    assert_eq!((stats.accepted, stats.completed, stats.in_service), (8, 8, 0));
    assert!(
        sink.all()
            .values()
            .all(|stored| { *stored == Stored::Complete(b"first half, second half".to_vec()) })
    );
}
