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

#[cfg(feature = "tls")]
mod tls {
    use std::sync::atomic::AtomicUsize;

    use rustls::crypto::ring::default_provider;
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

    use super::*;
    use crate::server::FailedHandshake;

    /// Counts the handshakes that the server continues.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl ResolvesServerCert for Counted {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            None
        }
    }

    fn client_hello() -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = "receiver.example".try_into().unwrap();
        let mut hello = Vec::new();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        client.write_tls(&mut hello).unwrap();
        hello
    }

    fn builder(handshakes: &Arc<Counted>) -> ServerBuilder<MemorySink> {
        let config = ServerConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Counted>::clone(handshakes));
        Server::builder(MemorySink::new()).tls(config)
    }

    #[test]
    fn leaves_a_due_handshake_with_input_to_the_workers() {
        let handshakes = Arc::new(Counted::default());
        let mut fixture = Fixture::new(builder(&handshakes));
        fixture.client.write_all(&client_hello()).unwrap();
        fixture.expire();
        assert_eq!(handshakes.0.load(Ordering::SeqCst), 0);
        let connection = fixture.watched();
        assert!(matches!(connection, Connection::Securing(_)));
        let connections = &fixture.shared.connections;
        let mut copier = connections.copier();
        drop(connections.take_turn(connection, &mut copier));
        assert_eq!(handshakes.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn ends_a_silent_handshake() {
        let (failed, failures) = std::sync::mpsc::channel();
        let report = move |failure: &FailedHandshake| failed.send(failure.failure.code()).unwrap();
        let mut fixture = Fixture::new(builder(&Arc::default()).on_handshake_failure(report));
        std::thread::sleep(IDLE / 2);
        fixture.front.run_due(Instant::now());
        let mut hint = [0; 7];
        fixture.client.read_exact(&mut hint).unwrap();
        assert_eq!(hint, [21, 3, 3, 0, 2, 1, 90]);
        assert!(failures.try_recv().is_err());
        fixture.expire();
        assert_eq!(failures.try_recv(), Ok("tls-silent"));
        assert!(fixture.client.read(&mut hint).is_err(), "a reset");
    }
}
