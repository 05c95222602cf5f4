//! Steps of the front thread, taken one by one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::front::Front;
use super::{LISTENERS, Shared};
use crate::server::connection::Connection;
use crate::server::{Backend, Server, ServerBuilder, Threading};
use crate::sink::MemorySink;

const IDLE: Duration = Duration::from_millis(200);

/// The state of a server without threads that has accepted one client.
struct Fixture {
    front: Front<MemorySink>,
    shared: Arc<Shared<MemorySink>>,
    client: TcpStream,
}

impl Fixture {
    fn new(builder: ServerBuilder<MemorySink>) -> Self {
        let builder = builder.threading(Threading::Reactor).idle_timeout(IDLE);
        let server = builder.bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let Backend::Reactor(reactor) = server.backend else { unreachable!("as requested") };
        let mut front = reactor.front;
        let shared = Arc::clone(&front.shared);
        while shared.places.taken() == 0 {
            front.accept_all();
            std::thread::sleep(Duration::from_millis(1));
        }
        Fixture { front, shared, client }
    }

    /// Waits until the deadline of the client has passed, and handles it.
    fn expire(&mut self) {
        std::thread::sleep(IDLE);
        self.front.run_due(Instant::now());
    }

    /// Returns the connection, for which the workers must have an event.
    fn watched(&self) -> Connection<MemorySink> {
        let event = self.shared.sessions.wait(Some(Duration::from_secs(10))).unwrap();
        let (key, connection) = self.shared.slots.evict(0).expect("it is parked");
        assert_eq!(event, Some(key.token()), "the workers watch it");
        connection
    }
}

#[test]
fn serves_a_connection_whose_header_is_complete_at_its_deadline() {
    let mut fixture = Fixture::new(Server::builder(MemorySink::new()).proxy_protocol(true));
    fixture.client.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n").unwrap();
    fixture.expire();
    let mut greeting = [0; 7];
    fixture.client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"accio\r\n");
    fixture.client.write_all(b"x").unwrap();
    assert!(matches!(fixture.watched(), Connection::Serving(..)));
}

/// A logger that waits in the thread [`SLOW`] until it may continue.
struct SlowLogger;

const SLOW: &str = "accio-slow-logger";
static IS_WAITING: AtomicBool = AtomicBool::new(false);
static MAY_CONTINUE: AtomicBool = AtomicBool::new(false);

impl log::Log for SlowLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        std::thread::current().name() == Some(SLOW)
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            IS_WAITING.store(true, Ordering::SeqCst);
            wait_for(&MAY_CONTINUE);
        }
    }

    fn flush(&self) {}
}

fn wait_for(flag: &AtomicBool) {
    let started = Instant::now();
    while !flag.load(Ordering::SeqCst) && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Numbers follow the order of acceptance, by a lock that a stop needs, too.
#[test]
fn a_stop_does_not_wait_for_a_logger_that_a_worker_calls() {
    log::set_logger(&SlowLogger).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let server = Server::builder(MemorySink::new()).threading(Threading::Reactor);
    let server = server.bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(server.local_addr()).unwrap();
    let Backend::Reactor(reactor) = server.backend else { unreachable!("as requested") };
    let mut front = reactor.front;
    let shared = Arc::clone(&front.shared);
    let worker = std::thread::Builder::new().name(SLOW.to_owned());
    let worker = worker.spawn(move || {
        while !IS_WAITING.load(Ordering::SeqCst) {
            shared.accept(LISTENERS);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    wait_for(&IS_WAITING);
    let (stopped, is_stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        front.shut_down();
        let _ = stopped.send(());
    });
    let is_stopped = is_stopped.recv_timeout(Duration::from_secs(10));
    MAY_CONTINUE.store(true, Ordering::SeqCst);
    assert!(is_stopped.is_ok(), "the stop waits for the logger");
    worker.unwrap().join().unwrap();
    drop(client);
}
