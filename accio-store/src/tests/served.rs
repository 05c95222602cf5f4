//! Tests of the sink in a real server with real connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::AtomicUsize;

use accio_proto::{Server, ServerHandle, Threading};
use accio_tokio::Bridge;

use super::*;

/// A running server, stopped when dropped.
struct RunningServer {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

/// Starts a server with a sink.
type Start = fn(&StoreSink, Duration) -> RunningServer;

impl RunningServer {
    /// Starts a server with a thread for each connection.
    fn with_threads(sink: &StoreSink, idle: Duration) -> Self {
        let server = Server::builder(sink.clone()).idle_timeout(idle).bind("127.0.0.1:0").unwrap();
        let (address, handle) = (server.local_addr(), server.handle());
        let thread = Some(thread::spawn(move || server.run().unwrap()));
        RunningServer { address, handle, thread }
    }

    /// Starts a server with a task for each connection.
    fn with_tasks(sink: &StoreSink, idle: Duration) -> Self {
        let builder = Server::builder(Bridge::new(sink.asynchronous().clone()));
        let builder = builder.idle_timeout(idle).threading(Threading::Runtime);
        let server = builder.bind("127.0.0.1:0").unwrap();
        let (address, handle) = (server.local_addr(), server.handle());
        let sink = sink.clone();
        let serve = async { accio_tokio::spawn_async(server)?.ended().await };
        let thread = Some(thread::spawn(move || sink.runtime().block_on(serve).unwrap()));
        RunningServer { address, handle, thread }
    }

    /// Stops the server and waits for its end.
    fn stop(mut self) {
        self.handle.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.handle.stop();
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Sends the content while counting bytes; returns whether the server confirmed it.
fn send(to: SocketAddr, bytes: &[u8], sent: &AtomicUsize) -> bool {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.set_write_timeout(Some(BOUND)).unwrap();
    for piece in bytes.chunks(64 << 10) {
        if stream.write_all(piece).is_err() {
            return false;
        }
        sent.fetch_add(piece.len(), Ordering::SeqCst);
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).is_ok() && heard == b"accio\r\n"
}

#[test]
fn a_slow_store_slows_only_its_client_and_does_not_count_as_idle() {
    slows_only_its_client(RunningServer::with_threads);
}

#[test]
fn a_slow_store_slows_only_its_client_with_tasks() {
    slows_only_its_client(RunningServer::with_tasks);
}

fn slows_only_its_client(start: Start) {
    const IDLE: Duration = Duration::from_secs(1);
    let (sink, plan) = faulty();
    plan.delays_parts.store(true, Ordering::SeqCst);
    let server = start(&sink, IDLE);
    let address = server.address;
    let bytes = Arc::new(content(3 * MEMORY, 0));
    let sent = Arc::new(AtomicUsize::new(0));
    let large = {
        let (bytes, sent) = (Arc::clone(&bytes), Arc::clone(&sent));
        thread::spawn(move || send(address, &bytes, &sent))
    };
    // Wait until nothing more can be sent, and then for twice the idle timeout.
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < 2 * IDLE || last == 0 {
        assert!(since.elapsed() < BOUND, "nothing was sent");
        let now = sent.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(last < bytes.len(), "the client was not slowed down");
    assert!(sink.shared().budget.peak() <= MEMORY);
    // Small uploads find the little memory that they need.
    assert!(send(address, b"small", &AtomicUsize::new(0)));
    assert_eq!(get(&sink, 2).unwrap(), b"small");
    assert!(!large.is_finished());
    plan.delays_parts.store(false, Ordering::SeqCst);
    assert!(large.join().unwrap(), "the client counted as idle");
    assert!(get(&sink, 1).unwrap() == *bytes);
}

#[test]
fn a_reset_leaves_the_marker_and_no_upload() {
    marks_after_a_reset(RunningServer::with_threads);
}

#[test]
fn a_reset_leaves_the_marker_and_no_upload_with_tasks() {
    marks_after_a_reset(RunningServer::with_tasks);
}

/// A store that does not answer delays a stop only for the time that cleaning up may take.
#[test]
fn a_stuck_store_does_not_delay_the_stop_of_either_server() {
    for start in [RunningServer::with_threads as Start, RunningServer::with_tasks] {
        let (sink, plan) = faulty();
        plan.delays_parts.store(true, Ordering::SeqCst);
        let server = start(&sink, BOUND);
        let streams: Vec<_> = (0..4).map(|_| TcpStream::connect(server.address).unwrap()).collect();
        let bytes = content(2 * MEMORY, 0);
        for stream in &streams {
            stream.set_nonblocking(true).unwrap();
        }
        // Wait until nothing more can be sent: the uploads hold all memory.
        let (mut sent, mut last) = (0, Instant::now());
        let began = Instant::now();
        while last.elapsed() < Duration::from_millis(500) || sent < MEMORY {
            assert!(began.elapsed() < BOUND, "only {sent} bytes were sent");
            for mut stream in &streams {
                if let Ok(count) = stream.write(&bytes) {
                    (sent, last) = (sent + count, Instant::now());
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
        let began = Instant::now();
        server.stop();
        assert!(began.elapsed() < 2 * LAST_CLEANUP, "took {:?}", began.elapsed());
        for id in 1..=4 {
            assert_eq!(get(&sink, id).unwrap(), b"ERROR");
        }
        assert_eq!(plan.open.load(Ordering::SeqCst), 0);
        assert_eq!(sink.shared().budget.in_use(), 0);
    }
}

fn marks_after_a_reset(start: Start) {
    let (sink, plan) = faulty();
    let server = start(&sink, BOUND);
    let stream = TcpStream::connect(server.address).unwrap();
    (&stream).write_all(&content(2 * PART, 0)).unwrap();
    let began = Instant::now();
    while plan.open.load(Ordering::SeqCst) == 0 && began.elapsed() < BOUND {
        thread::sleep(Duration::from_millis(5));
    }
    // The greeting is unread, so dropping the stream resets the connection.
    drop(stream);
    while get(&sink, 1).is_none() && began.elapsed() < BOUND {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(get(&sink, 1).unwrap(), b"ERROR");
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}
