//! The sink below a real server, with real connections.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::AtomicUsize;

use accio_proto::{Server, ServerHandle};

use super::*;

/// A server, stopped with the test however that goes.
struct Running {
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(sink: &StoreSink, idle: Duration) -> Self {
        let server = Server::builder(sink.clone()).idle_timeout(idle).bind("127.0.0.1:0").unwrap();
        let (address, handle) = (server.local_addr(), server.handle());
        let thread = Some(thread::spawn(move || server.run().unwrap()));
        Running { address, handle, thread }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// Sends it all, counting; whether the server confirmed.
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
fn a_slow_store_is_felt_by_its_sender_alone_and_is_not_its_fault() {
    const IDLE: Duration = Duration::from_secs(1);
    let (sink, plan) = faulty();
    plan.stuck.store(true, Ordering::SeqCst);
    let server = Running::start(&sink, IDLE);
    let address = server.address;
    let bytes = Arc::new(content(3 * MEMORY, 0));
    let sent = Arc::new(AtomicUsize::new(0));
    let large = {
        let (bytes, sent) = (Arc::clone(&bytes), Arc::clone(&sent));
        thread::spawn(move || send(address, &bytes, &sent))
    };
    // Until nothing more can be sent, and then for twice what a client may be silent.
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < 2 * IDLE || last == 0 {
        assert!(since.elapsed() < BOUND, "nothing was sent");
        let now = sent.load(Ordering::SeqCst);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(last < bytes.len(), "the store's slowness was not felt");
    assert!(sink.shared().budget.peak() <= MEMORY);
    // The small ones find what little memory they need.
    assert!(send(address, b"small", &AtomicUsize::new(0)));
    assert_eq!(get(&sink, 2).unwrap(), b"small");
    assert!(!large.is_finished());
    plan.stuck.store(false, Ordering::SeqCst);
    assert!(large.join().unwrap(), "taken for silent");
    assert!(get(&sink, 1).unwrap() == *bytes);
}

#[test]
fn a_reset_leaves_the_mark_and_no_upload() {
    let (sink, plan) = faulty();
    let server = Running::start(&sink, BOUND);
    let stream = TcpStream::connect(server.address).unwrap();
    (&stream).write_all(&content(2 * PART, 0)).unwrap();
    let began = Instant::now();
    while plan.open.load(Ordering::SeqCst) == 0 && began.elapsed() < BOUND {
        thread::sleep(Duration::from_millis(5));
    }
    // The greeting is unread, so this is a reset.
    drop(stream);
    while get(&sink, 1).is_none() && began.elapsed() < BOUND {
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(get(&sink, 1).unwrap(), b"ERROR");
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}
