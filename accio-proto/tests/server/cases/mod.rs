//! Test cases for the threading mode of the parent module.

mod content;
#[cfg(feature = "digest")]
mod digests;
mod explosive;
mod listening;
mod logging;
mod reviews;
mod serving;
mod silence;
mod sinks;
mod stopping;
mod watching;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use accio_proto::{
    Connection, CountSink, Dialect, Digest, DirSink, FastPath, FastPaths, FileSink, MemorySink,
    OpenError, Server, ServerBuilder, ServerError, ServerHandle, SinkFile, Stored,
};

use super::{IS_ASYNCHRONOUS, Sink, THREADING, builder};
use crate::ALONE;

/// Maximum duration of any wait in these tests.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Returns content whose blocks all differ. Calculating each byte takes seconds without optimization.
fn pattern(length: usize) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let block: Vec<u8> = (0..BLOCK).map(|i| (i.wrapping_mul(40_503) >> 8) as u8).collect();
    let mut bytes = block.repeat(length.div_ceil(BLOCK));
    for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
        block[..8].copy_from_slice(&(index as u64).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The reported outcome of a connection, in a comparable form.
#[derive(Debug, Clone)]
pub(super) struct Reported {
    pub(super) dialect: Option<Dialect>,
    pub(super) bytes: u64,
    pub(super) digest: Option<Digest>,
    pub(super) error: Option<String>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) duration: Duration,
    pub(super) unmarked: bool,
}

#[derive(Default)]
pub(super) struct Outcomes {
    reported: Mutex<BTreeMap<u64, Reported>>,
    changed: Condvar,
}

impl Outcomes {
    /// Returns the outcomes of the connections that have ended so far.
    pub(super) fn ended(&self) -> BTreeMap<u64, Reported> {
        self.reported.lock().unwrap().clone()
    }

    /// Waits until `count` connections have ended.
    pub(super) fn wait(&self, count: usize) -> BTreeMap<u64, Reported> {
        let ended = self.reported.lock().unwrap();
        let few = |ended: &mut BTreeMap<u64, Reported>| ended.len() < count;
        let (ended, _) = self.changed.wait_timeout_while(ended, PATIENCE, few).unwrap();
        assert_eq!(ended.len(), count, "connections that ended");
        drop(ended);
        self.ended()
    }
}

/// A running server, stopped and joined when dropped.
pub(super) struct RunningServer {
    pub(super) address: SocketAddr,
    pub(super) handle: ServerHandle,
    pub(super) outcomes: Arc<Outcomes>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

pub(super) fn start(builder: ServerBuilder<Sink>) -> RunningServer {
    start_at(builder, "127.0.0.1:0")
}

fn start_at(builder: ServerBuilder<Sink>, address: &str) -> RunningServer {
    let outcomes = Arc::new(Outcomes::default());
    let server = observed(builder, &outcomes).bind(address).unwrap();
    run(server, outcomes)
}

pub(super) fn observed(
    builder: ServerBuilder<Sink>,
    outcomes: &Arc<Outcomes>,
) -> ServerBuilder<Sink> {
    let outcomes = Arc::clone(outcomes);
    builder.threading(THREADING).on_outcome(move |outcome| {
        let ended = Reported {
            dialect: outcome.connection.dialect,
            bytes: outcome.bytes,
            digest: outcome.digest,
            error: outcome.result.as_ref().err().map(ToString::to_string),
            peer: outcome.connection.peer,
            duration: outcome.duration,
            unmarked: outcome.unmarked.is_some(),
        };
        let earlier = outcomes.reported.lock().unwrap().insert(outcome.connection.id, ended);
        assert!(earlier.is_none(), "connection {} was reported twice", outcome.connection.id);
        outcomes.changed.notify_all();
    })
}

pub(super) fn run(server: Server<Sink>, outcomes: Arc<Outcomes>) -> RunningServer {
    let (address, handle) = (server.local_addr(), server.handle());
    let thread = Some(std::thread::spawn(move || super::serve(server)));
    RunningServer { address, handle, outcomes, thread }
}

impl RunningServer {
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

impl Drop for RunningServer {
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

/// Sends content and FIN, and waits for the server's FIN.
pub(super) fn upload(server: &RunningServer, content: &[u8]) {
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(content).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
}

/// Sends content and resets the connection.
pub(super) fn upload_and_reset(server: &RunningServer, content: &[u8]) {
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(content).unwrap();
    reset(stream);
}

pub(super) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends content and FIN. The server may reset the connection before the FIN.
pub(super) fn send_in_vain(stream: &mut TcpStream, content: &[u8]) {
    stream.write_all(content).unwrap();
    match stream.shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
        sent => sent.unwrap(),
    }
}

/// Returns whether the server reset the connection.
pub(super) fn is_reset(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 64]), Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

/// Serves connections that end in all ways, and checks what becomes of them.
pub(super) fn ends_each_connection(builder: ServerBuilder<Sink>, memory: &MemorySink) {
    let server = start(builder.max_size(100).max_per_ip(NonZeroU32::MIN));
    upload(&server, b"content");
    let mut large = server.connect();
    greeted(&mut large);
    assert!(is_reset(&mut server.connect()), "a second connection of the address is refused");
    send_in_vain(&mut large, &[b'x'; 1000]);
    assert!(is_reset(&mut large));
    upload(&server, b"more");
    let mut silent = server.connect();
    greeted(&mut silent);
    let (handle, outcomes) = (server.handle.clone(), Arc::clone(&server.outcomes));
    server.stop().unwrap();
    assert!(is_reset(&mut silent));

    let ended = outcomes.wait(4);
    assert!([1, 3].iter().all(|id| ended[id].error.is_none()), "{ended:?}");
    assert!([2, 4].iter().all(|id| ended[id].error.is_some()), "{ended:?}");
    assert_eq!(memory.get(1), Some(Stored::Complete(b"content".to_vec())));
    assert_eq!(memory.get(3), Some(Stored::Complete(b"more".to_vec())));
    assert!([2, 4].iter().all(|id| memory.get(*id) == Some(Stored::Error)), "{:?}", memory.all());
    assert_eq!(handle.connections().count(), 0);
    let stats = handle.stats();
    let ended = (stats.completed, stats.failed, stats.refused, stats.in_service);
    assert_eq!(ended, (2, 2, 1, 0), "{stats:?}");
}
