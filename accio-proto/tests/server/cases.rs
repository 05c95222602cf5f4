//! The cases, for the threading that the module above names.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use accio_proto::{
    CountSink, Dialect, DirSink, FastPath, FastPaths, FileSink, MemorySink, Server, ServerBuilder,
    ServerError, ServerHandle, SinkFile, Stored,
};

use super::THREADING;
use crate::ALONE;

/// The longest any wait here may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What is told of a connection, in a form that can be compared.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) dialect: Option<Dialect>,
    pub(super) bytes: u64,
    pub(super) error: Option<String>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) duration: Duration,
}

#[derive(Default)]
pub(super) struct Outcomes {
    told: Mutex<BTreeMap<u64, Told>>,
    changed: Condvar,
}

impl Outcomes {
    /// Waits until `count` connections have ended.
    pub(super) fn wait(&self, count: usize) -> BTreeMap<u64, Told> {
        let told = self.told.lock().unwrap();
        let few = |told: &mut BTreeMap<u64, Told>| told.len() < count;
        let (told, _) = self.changed.wait_timeout_while(told, PATIENCE, few).unwrap();
        assert_eq!(told.len(), count, "connections that ended");
        told.clone()
    }
}

/// A running server, stopped and joined in any case.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) handle: ServerHandle,
    pub(super) outcomes: Arc<Outcomes>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

pub(super) fn start<K: FileSink>(builder: ServerBuilder<K>) -> Running {
    start_at(builder, "127.0.0.1:0")
}

fn start_at<K: FileSink>(builder: ServerBuilder<K>, address: &str) -> Running {
    let outcomes = Arc::new(Outcomes::default());
    let server = observed(builder, &outcomes).bind(address).unwrap();
    run(server, outcomes)
}

pub(super) fn observed<K: FileSink>(
    builder: ServerBuilder<K>,
    outcomes: &Arc<Outcomes>,
) -> ServerBuilder<K> {
    let outcomes = Arc::clone(outcomes);
    builder.threading(THREADING).on_outcome(move |outcome| {
        let told = Told {
            dialect: outcome.dialect,
            bytes: outcome.bytes,
            error: outcome.result.as_ref().err().map(ToString::to_string),
            peer: outcome.peer,
            duration: outcome.duration,
        };
        let earlier = outcomes.told.lock().unwrap().insert(outcome.id, told);
        assert!(earlier.is_none(), "connection {} was told twice", outcome.id);
        outcomes.changed.notify_all();
    })
}

pub(super) fn run<K: FileSink>(server: Server<K>, outcomes: Arc<Outcomes>) -> Running {
    let (address, handle) = (server.local_addr(), server.handle());
    let thread = Some(std::thread::spawn(move || server.run()));
    Running { address, handle, outcomes, thread }
}

impl Running {
    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Stops the server and waits for it to return.
    pub(super) fn stop(mut self) -> Result<(), ServerError> {
        self.handle.stop();
        self.join().expect("the server ran")
    }

    fn join(&mut self) -> Option<Result<(), ServerError>> {
        let thread = self.thread.take()?;
        let started = Instant::now();
        while !thread.is_finished() && started.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(thread.is_finished(), "the server does not return");
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if !std::thread::panicking() {
            let _ = self.join();
        }
    }
}

pub(super) fn workers(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

pub(super) fn greeted(stream: &mut TcpStream) {
    let mut greeting = [0; 7];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"accio\r\n");
}

/// Sends content and FIN, and waits for the server's.
pub(super) fn upload(server: &Running, content: &[u8]) {
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(content).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a kept file");
}

pub(super) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The server reset the connection.
pub(super) fn is_reset(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn numbers_follow_the_order_of_acceptance() {
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()).workers(workers(4)));
    // All connected before any is greeted in turn, and ended backwards.
    let streams: Vec<_> = (1..=100).map(|number| (number, server.connect())).collect();
    for (number, mut stream) in streams.into_iter().rev() {
        greeted(&mut stream);
        write!(stream, "I am number {number}").unwrap();
    }
    server.outcomes.wait(100);
    for number in 1..=100u64 {
        let content = format!("I am number {number}").into_bytes();
        assert_eq!(sink.get(number), Some(Stored::Complete(content)));
    }
    server.stop().unwrap();
}

#[test]
fn a_thousand_connections_at_once_keep_their_own_content() {
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()));
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for part in 0..8u64 {
            let (server, barrier) = (&server, &barrier);
            scope.spawn(move || {
                let mut streams: Vec<_> = (0..125).map(|_| server.connect()).collect();
                for stream in &mut streams {
                    greeted(stream);
                }
                barrier.wait();
                for round in 0..3 {
                    for (index, stream) in streams.iter_mut().enumerate() {
                        write!(stream, "<{part}.{index}.{round}>").unwrap();
                    }
                }
            });
        }
    });
    let told = server.outcomes.wait(1000);
    assert!(told.keys().copied().eq(1..=1000));
    assert!(told.values().all(|told| told.error.is_none() && told.peer.is_some()));
    let mut kept: Vec<_> = sink.all().into_values().collect();
    let mut sent: Vec<_> = (0..8)
        .flat_map(|part| (0..125).map(move |index| (part, index)))
        .map(|(part, index)| {
            let rounds = (0..3).map(|round| format!("<{part}.{index}.{round}>"));
            Stored::Complete(rounds.collect::<String>().into_bytes())
        })
        .collect();
    let key = |stored: &Stored| match stored {
        Stored::Complete(content) => content.clone(),
        Stored::Error => Vec::new(),
    };
    kept.sort_by_key(key);
    sent.sort_by_key(key);
    assert!(kept == sent);
}

/// One after the other, so that nothing else wakes a worker: each must be told of its end at once,
/// not when the next event comes. Should it wait, `upload` runs into its time limit.
#[test]
fn each_of_many_in_a_row_is_told_of_its_end() {
    let sink = CountSink;
    let server = start(Server::builder(sink).workers(workers(4)));
    for _ in 0..10_000 {
        upload(&server, b"content");
    }
    server.outcomes.wait(10_000);
    server.stop().unwrap();
}

#[test]
fn at_a_limit_of_one_the_others_wait_unrefused_and_ungreeted() {
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()).max_connections(workers(1)));
    let mut streams: Vec<_> = (0..12).map(|_| server.connect()).collect();
    for index in 0..streams.len() {
        let (now, later) = streams[index..].split_first_mut().unwrap();
        greeted(now);
        std::thread::sleep(Duration::from_millis(20));
        for stream in later {
            stream.set_nonblocking(true).unwrap();
            let nothing = stream.read(&mut [0]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "not its turn");
            stream.set_nonblocking(false).unwrap();
        }
        write!(now, "{index}").unwrap();
        now.shutdown(Shutdown::Write).unwrap();
    }
    server.outcomes.wait(12);
    for index in 0..12u64 {
        let content = index.to_string().into_bytes();
        assert_eq!(sink.get(index + 1), Some(Stored::Complete(content)));
    }
}

#[test]
fn stopping_aborts_what_is_unfinished_and_tells_of_it() {
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()));
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
    let told = outcomes.wait(51);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"done".to_vec())));
    for id in 2..=51 {
        assert_eq!(sink.get(id), Some(Stored::Error));
        assert_eq!(told[&id].error.as_deref(), Some("the server was stopped"));
    }
    assert!(streams.iter_mut().all(is_reset));
    assert!(TcpStream::connect(address).is_err());
}

/// Sessions that are in a worker's hands when the server stops end as the parked ones do.
#[test]
fn stopping_in_the_middle_of_busy_transfers_forgets_none() {
    for round in 0..60 {
        let sink = MemorySink::new();
        let server = start(Server::builder(sink.clone()).workers(workers(4)));
        let mut streams: Vec<_> = (0..6).map(|_| server.connect()).collect();
        streams.iter_mut().for_each(greeted);
        std::thread::scope(|scope| {
            for mut stream in streams {
                scope.spawn(move || while stream.write_all(&[7; 20_000]).is_ok() {});
            }
            std::thread::sleep(Duration::from_micros(500 + 37 * round));
            let outcomes = Arc::clone(&server.outcomes);
            server.stop().unwrap();
            let told = outcomes.told.lock().unwrap();
            assert!(told.keys().copied().eq(1..=6), "round {round}: {told:?}");
        });
        assert_eq!(sink.all().len(), 6);
    }
}

/// The same when it is a panic that stops it: only the session that panicked is lost.
#[test]
fn a_panic_in_the_middle_of_busy_transfers_forgets_no_other() {
    for round in 0..60 {
        let memory = MemorySink::new();
        let writes = std::sync::atomic::AtomicU32::new(0);
        let sink = Odd::new(&memory, move |id| {
            let write = writes.fetch_add(u32::from(id == 6), std::sync::atomic::Ordering::SeqCst);
            assert!(id != 6 || write < 5 + round, "the sink panics");
        });
        let mut server = start(Server::builder(sink).workers(workers(4)));
        let mut streams: Vec<_> = (0..6).map(|_| server.connect()).collect();
        streams.iter_mut().for_each(greeted);
        std::thread::scope(|scope| {
            for mut stream in streams {
                scope.spawn(move || while stream.write_all(&[7; 20_000]).is_ok() {});
            }
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.join()));
            panic.expect_err("run() panics");
        });
        for id in 1..6 {
            assert_eq!(memory.get(id), Some(Stored::Error), "round {round}, connection {id}");
        }
        assert_eq!(memory.get(6), None);
    }
}

#[test]
fn the_outcome_says_what_there_is_to_know() {
    let server = start(Server::builder(CountSink));
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    greeted(&mut stream);
    stream.write_all(b"confirm-accio\r\nconfirm-accio-again\r\n\r\n").unwrap();
    stream.write_all(&[b'x'; 1000]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stream.shutdown(Shutdown::Write).unwrap();
    let told = &server.outcomes.wait(1)[&1];
    assert_eq!((told.dialect, told.bytes, &told.error), (Some(Dialect::Confirm), 1000, &None));
    assert_eq!(told.peer, Some(peer));
    assert!(told.duration >= Duration::from_millis(50) && told.duration < PATIENCE);

    upload(&server, b"");
    let told = &server.outcomes.wait(2)[&2];
    assert_eq!((told.dialect, told.bytes, &told.error), (Some(Dialect::Accio), 0, &None));
}

#[test]
fn five_hundred_silent_connections_end_on_time() {
    // Not beside its twin: what is measured here is the server, not the machine.
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Too early is never right; too late may be the fault of whatever else runs here, once.
    let on_time = (0..4).any(|_| lateness_of_silence(500) <= Duration::from_millis(500));
    assert!(on_time, "late each time");
}

/// Lets so many connections be silent; how late the last one was ended.
fn lateness_of_silence(count: u64) -> Duration {
    let idle = Duration::from_millis(1500);
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()).idle_timeout(idle));
    let waiting: Vec<_> = (0..count)
        .map(|_| {
            // Silence counts from the accept or the greeting, which both come later.
            let since = Instant::now();
            let mut stream = server.connect();
            greeted(&mut stream);
            (since, stream)
        })
        .collect();
    for (since, mut stream) in waiting {
        assert!(is_reset(&mut stream));
        assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
    }
    let told = server.outcomes.wait(count as usize);
    for (id, told) in &told {
        assert_eq!(told.error.as_deref(), Some("no data for 1.5 s"));
        assert!(told.duration >= idle, "{id}: {:?}", told.duration);
        assert_eq!(sink.get(*id), Some(Stored::Error));
    }
    let longest = told.values().map(|told| told.duration).max();
    longest.unwrap_or_default().saturating_sub(idle)
}

/// A byte is as good as any: silence counts from it.
#[test]
fn silence_counts_from_the_last_byte() {
    let idle = Duration::from_millis(800);
    let server = start(Server::builder(MemorySink::new()).idle_timeout(idle));
    let mut stream = server.connect();
    greeted(&mut stream);
    std::thread::sleep(idle / 2);
    let since = Instant::now();
    stream.write_all(b"a byte").unwrap();
    assert!(is_reset(&mut stream));
    assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
    assert_eq!(server.outcomes.wait(1)[&1].error.as_deref(), Some("no data for 0.8 s"));
}

#[test]
fn a_busy_connection_is_not_idle_and_each_byte_counts() {
    let idle = Duration::from_millis(600);
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()).idle_timeout(idle));
    let mut stream = server.connect();
    for byte in b"accio" {
        std::thread::sleep(Duration::from_millis(250));
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    server.outcomes.wait(1);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"accio".to_vec())));
}

#[test]
fn a_reset_is_never_a_short_file_but_after_a_fin_it_is_harmless() {
    for without in [&[][..], &FastPath::ALL] {
        for length in [0, 1, 1000, 300_000] {
            let sink = MemorySink::new();
            let paths = FastPaths::without(without.iter().copied());
            let server = start(Server::builder(sink.clone()).fast_paths(paths));
            let content = vec![b'x'; length];
            // Data and then a reset.
            let mut stream = server.connect();
            greeted(&mut stream);
            stream.write_all(&content).unwrap();
            reset(stream);
            server.outcomes.wait(1);
            assert_eq!(sink.get(1), Some(Stored::Error), "{length} bytes and RST");
            if length > 1000 {
                // A close with the greeting unread drops what is not sent yet, the FIN included.
                continue;
            }
            // Data, FIN, and a reset because the greeting was never read.
            let mut stream = server.connect();
            while stream.peek(&mut [0; 7]).unwrap() < 7 {}
            stream.write_all(&content).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            drop(stream);
            server.outcomes.wait(2);
            let kept = sink.get(2) == Some(Stored::Complete(content));
            assert!(kept, "{length} bytes, FIN and RST");
            // Data, and a close that resets for the same reason.
            let mut stream = server.connect();
            while stream.peek(&mut [0; 7]).unwrap() < 7 {}
            stream.write_all(b"data").unwrap();
            drop(stream);
            server.outcomes.wait(3);
            assert_eq!(sink.get(3), Some(Stored::Error), "closed with the greeting unread");
        }
    }
}

#[test]
fn the_portable_paths_keep_the_same_files() {
    for without in [&[][..], &FastPath::ALL] {
        let dir = tempfile::tempdir().unwrap();
        let paths = FastPaths::without(without.iter().copied());
        let sink = DirSink::options().fast_paths(paths.clone()).create(dir.path()).unwrap();
        let server = start(Server::builder(sink).fast_paths(paths));
        let contents: Vec<Vec<u8>> = [0, 1, 65_536, 65_537, 6 << 20]
            .into_iter()
            .map(|length| (0..length).map(|i: u32| (i.wrapping_mul(40_503) >> 8) as u8).collect())
            .collect();
        for content in &contents {
            upload(&server, content);
        }
        let mut partial = server.connect();
        greeted(&mut partial);
        partial.write_all(&contents[4]).unwrap();
        reset(partial);
        server.outcomes.wait(6);
        server.stop().unwrap();
        for (index, content) in contents.iter().enumerate() {
            let kept = std::fs::read(dir.path().join(format!("{}.file", index + 1))).unwrap();
            assert!(kept == *content, "{} bytes", content.len());
        }
        assert_eq!(std::fs::read(dir.path().join("6.file")).unwrap(), b"ERROR");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    }
}

/// A byte sent as urgent is content like any other, also where splicing stops before it.
#[test]
fn urgent_bytes_are_content() {
    for without in [&[][..], &FastPath::ALL] {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        let paths = FastPaths::without(without.iter().copied());
        let server = start(Server::builder(sink).fast_paths(paths));
        let mut stream = server.connect();
        greeted(&mut stream);
        let mut content = Vec::new();
        for round in 0..4 {
            let piece = vec![b'a' + round; 300_000];
            stream.write_all(&piece).unwrap();
            content.extend_from_slice(&piece);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(socket2::SockRef::from(&stream).send_out_of_band(b"!").unwrap(), 1);
            content.push(b'!');
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let told = &server.outcomes.wait(1)[&1];
        assert_eq!((told.bytes, &told.error), (content.len() as u64, &None), "{without:?}");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert!(std::fs::read(dir.path().join("1.file")).unwrap() == content);
    }
}

/// Splicing gets stuck before an urgent byte; what comes behind it must count as it comes, not
/// only when the end is there.
#[test]
fn what_follows_an_urgent_byte_is_heard_in_time() {
    let idle = Duration::from_millis(600);
    let dir = tempfile::tempdir().unwrap();
    let server = start(Server::builder(DirSink::create(dir.path()).unwrap()).idle_timeout(idle));
    let mut stream = server.connect();
    greeted(&mut stream);
    // Enough for the server to splice.
    stream.write_all(&[b'a'; 1 << 20]).unwrap();
    // One alone: a second would make the first a byte like any other.
    assert_eq!(socket2::SockRef::from(&stream).send_out_of_band(b"!").unwrap(), 1);
    for _ in 0..4 {
        std::thread::sleep(idle / 2);
        stream.write_all(b"b").unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let told = &server.outcomes.wait(1)[&1];
    assert_eq!((told.bytes, &told.error), ((1 << 20) + 5, &None));
}

/// A sink whose files of some numbers do something else than keep bytes.
#[derive(Clone)]
struct Odd {
    memory: MemorySink,
    on_write: Arc<dyn Fn(u64) + Send + Sync>,
}

struct OddFile {
    id: u64,
    file: <MemorySink as FileSink>::File,
    on_write: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Odd {
    fn new(memory: &MemorySink, on_write: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Odd { memory: memory.clone(), on_write: Arc::new(on_write) }
    }
}

impl FileSink for Odd {
    type File = OddFile;

    fn open(&self, id: u64) -> io::Result<OddFile> {
        Ok(OddFile { id, file: self.memory.open(id)?, on_write: Arc::clone(&self.on_write) })
    }
}

impl SinkFile for OddFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        (self.on_write)(self.id);
        self.file.write(bytes)
    }

    fn commit(self) -> io::Result<()> {
        self.file.commit()
    }

    fn abort(self) -> io::Result<()> {
        self.file.abort()
    }
}

#[test]
fn a_sink_that_blocks_for_one_holds_up_no_other() {
    let memory = MemorySink::new();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let sink = Odd::new(&memory, move |id| {
        if id == 1 {
            let _ = released.lock().unwrap().recv_timeout(PATIENCE);
        }
    });
    let server = start(Server::builder(sink).workers(workers(2)));
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

/// A slow sink eats into nobody's patience: silence counts from when the server listens again.
#[test]
fn time_the_sink_takes_is_not_the_peers_silence() {
    let idle = Duration::from_millis(500);
    let memory = MemorySink::new();
    let first = std::sync::atomic::AtomicBool::new(true);
    let sink = Odd::new(&memory, move |_| {
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(900));
        }
    });
    let server = start(Server::builder(sink).idle_timeout(idle).workers(workers(2)));
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(b"first ").unwrap();
    std::thread::sleep(Duration::from_millis(1150));
    stream.write_all(b"second").unwrap();
    drop(stream);
    server.outcomes.wait(1);
    assert_eq!(memory.get(1), Some(Stored::Complete(b"first second".to_vec())));
}

#[test]
fn a_panic_in_the_sink_or_the_observer_ends_the_server_with_it() {
    let memory = MemorySink::new();
    let sink = Odd::new(&memory, |id| assert!(id != 2, "the sink panics"));
    let mut server = start(Server::builder(sink).workers(workers(3)));
    let mut idle = server.connect();
    greeted(&mut idle);
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(b"x").unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.join()));
    let panic = panic.expect_err("run() panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the sink panics"));
    assert!(is_reset(&mut idle) && is_reset(&mut stream));
    assert_eq!(memory.get(1), Some(Stored::Error));
    assert_eq!(memory.get(2), None);

    let builder = Server::builder(CountSink).threading(THREADING);
    let builder = builder.on_outcome(|_| panic!("the observer panics"));
    let mut server = run(builder.bind("127.0.0.1:0").unwrap(), Arc::default());
    drop(server.connect());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.join()));
    let panic = panic.expect_err("run() panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the observer panics"));
}

#[test]
fn it_serves_on_a_socket_that_listens_already() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let sink = MemorySink::new();
    let outcomes = Arc::new(Outcomes::default());
    // Who connects before it runs is served too.
    let mut early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let builder = observed(Server::builder(sink.clone()), &outcomes);
    let server = run(builder.listen(socket).unwrap(), outcomes);
    assert_eq!(server.address, address);
    greeted(&mut early);
    early.write_all(b"early").unwrap();
    drop(early);
    upload(&server, b"late");
    server.outcomes.wait(2);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"early".to_vec())));
    assert_eq!(sink.get(2), Some(Stored::Complete(b"late".to_vec())));
}

#[test]
fn it_listens_on_ipv6_and_on_all_interfaces_of_both() {
    let sink = MemorySink::new();
    match TcpListener::bind("[::1]:0") {
        Ok(_) => {}
        Err(error) => {
            eprintln!("skipped: no IPv6 here: {error}");
            return;
        }
    }
    let server = start_at(Server::builder(sink.clone()), "[::1]:0");
    upload(&server, b"six");
    assert!(server.outcomes.wait(1)[&1].peer.unwrap().is_ipv6());
    assert_eq!(sink.get(1), Some(Stored::Complete(b"six".to_vec())));

    let mut server = start_at(Server::builder(MemorySink::new()), "[::]:0");
    server.address.set_ip("127.0.0.1".parse().unwrap());
    upload(&server, b"four");
    server.address.set_ip("::1".parse().unwrap());
    upload(&server, b"six");
    server.outcomes.wait(2);
}

#[test]
fn a_server_that_is_never_run_refuses_whoever_comes_after_it() {
    let server = Server::builder(CountSink).threading(THREADING).bind("127.0.0.1:0").unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let mut stream = TcpStream::connect(address).unwrap();
    drop(server);
    assert!(is_reset(&mut stream));
    assert!(TcpStream::connect(address).is_err());
    handle.stop();
}

#[test]
fn draining_lets_those_in_service_finish_and_nobody_else_in() {
    let sink = MemorySink::new();
    let mut server = start(Server::builder(sink.clone()).max_connections(workers(8)));
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
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a kept file");
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

#[test]
fn who_is_turned_away_gets_no_number_and_the_place_is_free_again() {
    let sink = MemorySink::new();
    let one = std::num::NonZeroU32::MIN;
    let server = start(Server::builder(sink.clone()).max_per_ip(one).max_connections(workers(2)));
    for round in 1..=3u64 {
        let mut kept = server.connect();
        greeted(&mut kept);
        for _ in 0..5 {
            assert!(is_reset(&mut server.connect()), "one connection is all it may have");
        }
        kept.write_all(b"kept").unwrap();
        drop(kept);
        server.outcomes.wait(round as usize);
        let started = Instant::now();
        // The place is given back after the outcome was told.
        while server.handle.stats().in_service > 0 && started.elapsed() < PATIENCE {}
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(sink.get(round), Some(Stored::Complete(b"kept".to_vec())));
    }
    let stats = server.handle.stats();
    assert_eq!((stats.accepted, stats.refused), (3, 15));
}
