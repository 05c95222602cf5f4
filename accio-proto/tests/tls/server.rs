//! Tests of the server with TLS, in both threading modes, over loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use accio_proto::tls::{KnownClients, Pin, ServerTls};
use accio_proto::{
    Abort, Client, Dialect, MemorySink, Server, ServerBuilder, ServerHandle, Stored, Threading,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::content;
use crate::pair::{Identity, SERVER, client_config, server_config};

/// A report of the server: the number, code and identity of an outcome, or the code of a failed
/// handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    Outcome(u64, &'static str, Option<String>),
    Handshake(&'static str),
}

pub(crate) struct RunningServer {
    pub(crate) address: SocketAddr,
    pub(crate) files: MemorySink,
    reports: Receiver<Report>,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

/// The idle timeout of the servers: long enough for handshakes on a busy machine.
const IDLE: Duration = Duration::from_secs(2);
/// How long other processes of a busy machine may delay the end of a connection.
const BUSY: Duration = Duration::from_secs(5);

impl RunningServer {
    pub(crate) fn new(
        threading: Threading,
        tls: ServerTls,
        change: impl FnOnce(ServerBuilder<MemorySink>) -> ServerBuilder<MemorySink>,
    ) -> Self {
        let files = MemorySink::new();
        let (send, reports) = channel();
        let send = Mutex::new(send);
        let tell = Arc::new(move |report| drop(send.lock().unwrap().send(report)));
        let again = Arc::clone(&tell);
        let builder = Server::builder(files.clone())
            .threading(threading)
            .idle_timeout(IDLE)
            .tls(tls)
            .on_outcome(move |outcome| {
                let code = outcome.result.as_ref().map_or_else(Abort::code, |()| "kept");
                let identity = outcome.connection.identity.as_deref().map(str::to_owned);
                tell(Report::Outcome(outcome.connection.id, code, identity));
            })
            .on_handshake_failure(move |failed| again(Report::Handshake(failed.failure.code())));
        let server = change(builder).bind("127.0.0.1:0").unwrap();
        let (address, handle) = (server.local_addr(), server.handle());
        let thread = Some(thread::spawn(move || server.run().unwrap()));
        RunningServer { address, files, reports, handle, thread }
    }

    pub(crate) fn report(&self) -> Report {
        self.reports.recv_timeout(Duration::from_secs(20)).expect("a report")
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Opens a connection, completes the handshake and reads the greeting.
    fn secure(&self, identity: Option<&Identity>) -> StreamOwned<ClientConnection, TcpStream> {
        secure(self.connect(), identity)
    }
}

fn secure(
    stream: TcpStream,
    identity: Option<&Identity>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let config = client_config(SERVER.pin(), identity);
    let name = ServerName::try_from("receiver.example").unwrap();
    let mut stream =
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream);
    let mut greeting = [0; 7];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"accio\r\n");
    stream
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.handle.stop();
        let started = Instant::now();
        self.thread.take().unwrap().join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "the stop took too long");
    }
}

pub(crate) fn both(test: impl Fn(Threading)) {
    test(Threading::Reactor);
    test(Threading::PerSession);
}

pub(crate) fn open() -> ServerTls {
    server_config(None).into()
}

/// Settings for listed clients with their names.
fn listed(clients: &[(&Identity, &str)]) -> ServerTls {
    let lines = clients.iter().map(|(client, name)| format!("{} {name}\n", client.pin()));
    let known: KnownClients = lines.collect::<String>().parse().unwrap();
    ServerTls::new(server_config(Some(known.clone()))).identify(move |chain| {
        let pin = Pin::of(&chain[0]).ok()?;
        known.name(&pin).map(|name| name.to_string())
    })
}

pub(crate) fn client() -> accio_proto::ClientBuilder {
    Client::builder().tls(client_config(SERVER.pin(), None))
}

#[test]
fn receives_files_in_every_dialect_and_size() {
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| builder);
        let mut id = 0;
        for dialect in [Dialect::Accio, Dialect::Confirm] {
            for size in [0, 1, 65_536, 3_000_000] {
                let content = content(size);
                let client = client().dialect(dialect).build().unwrap();
                let sent = client.send("127.0.0.1", server.address.port(), &content[..]).unwrap();
                id += 1;
                assert!(sent.confirmed);
                assert_eq!(server.report(), Report::Outcome(id, "kept", None));
                assert!(server.files.get(id) == Some(Stored::Complete(content)), "{size} bytes");
            }
        }
    });
}

#[test]
fn identifies_known_clients_and_gives_others_no_number() {
    both(|threading| {
        let [alice, stranger] = [(), ()].map(|()| Identity::of(Default::default()));
        let tls = listed(&[(&alice, "alice")]);
        let server = RunningServer::new(threading, tls, |builder| builder);
        for (identity, report) in [
            (Some(&stranger), Report::Handshake("tls-unknown-client")),
            (None, Report::Handshake("tls-no-certificate")),
            (Some(&alice), Report::Outcome(1, "kept", Some("alice".into()))),
        ] {
            let client = Client::builder().tls(client_config(SERVER.pin(), identity));
            let sent = client.build().unwrap().send("127.0.0.1", server.address.port(), &b"x"[..]);
            let known = matches!(report, Report::Outcome(..));
            assert_eq!(sent.is_ok(), known, "{sent:?}");
            assert_eq!(server.report(), report);
        }
        assert_eq!(server.handle.stats().refused, 2);
    });
}

#[test]
fn a_truncated_connection_leaves_the_marker() {
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| builder);
        let mut stream = server.secure(None);
        stream.write_all(&content(100_000)).unwrap();
        stream.flush().unwrap();
        // The connection ends with FIN but without close_notify.
        drop(stream.sock);
        assert_eq!(server.report(), Report::Outcome(1, "truncated", None));
        assert_eq!(server.files.get(1), Some(Stored::Error));
        let mut stream = server.secure(None);
        stream.write_all(b"content").unwrap();
        stream.sock.write_all(b"\x17\x03\x03\x00\x20 not a record of this connection..").unwrap();
        assert_eq!(server.report(), Report::Outcome(2, "tls", None));
        assert_eq!(server.files.get(2), Some(Stored::Error));
    });
}

#[test]
fn sends_close_notify_after_the_file_is_stored() {
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| builder);
        let mut stream = server.secure(None);
        stream.write_all(b"content").unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "close_notify, not only FIN");
        assert_eq!(server.files.get(1), Some(Stored::Complete(b"content".to_vec())));
    });
}

#[test]
fn a_client_without_tls_gets_an_alert_and_no_number() {
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| builder);
        let content = content(5_000_000);
        for dialect in [Dialect::Accio, Dialect::Confirm, Dialect::Direct] {
            let client = Client::builder().dialect(dialect).build().unwrap();
            let started = Instant::now();
            let sent = client.send("127.0.0.1", server.address.port(), &content[..]);
            let error = sent.unwrap_err();
            assert_eq!(error.code(), "tls-required", "{dialect}: {error}");
            let took = started.elapsed();
            assert!(took < IDLE, "{dialect}: {took:?}, not before the idle timeout");
            assert_eq!(server.report(), Report::Handshake("tls-plain"), "{dialect}");
        }
        server.secure(None);
        assert_eq!(server.report(), Report::Outcome(1, "truncated", None));
    });
}

#[test]
fn the_idle_timeout_applies_to_the_whole_handshake() {
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| builder);
        let started = Instant::now();
        let mut silent = server.connect();
        assert_eq!(server.report(), Report::Handshake("tls-silent"));
        let took = started.elapsed();
        assert!(took >= IDLE && took < IDLE + BUSY, "{took:?}");
        let mut rest = Vec::new();
        assert!(silent.read_to_end(&mut rest).is_err(), "a reset");
        assert_eq!(rest, [21, 3, 3, 0, 2, 1, 90], "the hint precedes it");

        let started = Instant::now();
        let mut slow = server.connect();
        // Bytes that arrive one at a time do not extend the timeout.
        let record = [&[22, 3, 1, 1, 0, 1, 0, 0, 252][..], &[0; 200]].concat();
        for byte in record {
            if slow.write_all(&[byte]).is_err() || started.elapsed() > 3 * IDLE {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(server.report(), Report::Handshake("tls-late"));
        assert!(started.elapsed() < IDLE + BUSY, "{:?}", started.elapsed());
    });
}

/// The deadlines of a PROXY header, and of an earlier connection in the same slot, are later.
#[test]
fn the_hint_comes_after_half_of_the_time_limit_whatever_came_before() {
    let idle = Duration::from_secs(2);
    let hinted = |stream: &mut TcpStream, since: Instant| {
        let mut hint = [0; 7];
        stream.read_exact(&mut hint).unwrap();
        assert_eq!(hint, [21, 3, 3, 0, 2, 1, 90]);
        let took = since.elapsed();
        assert!(took >= idle / 2 && took < idle * 3 / 4, "{took:?}");
    };
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| {
            builder.idle_timeout(idle).proxy_protocol(true)
        });
        let (since, mut stream) = (Instant::now(), server.connect());
        stream.write_all(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n").unwrap();
        hinted(&mut stream, since);
    });
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| builder.idle_timeout(idle));
        let mut stream = server.secure(None);
        for _ in 0..31 {
            thread::sleep(idle / 20);
            stream.write_all(b"x").unwrap();
        }
        // The idle timeout of this connection was checked just before, and is two seconds ahead.
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        assert_eq!(server.report(), Report::Outcome(1, "kept", None));
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
        let (since, mut stream) = (Instant::now(), server.connect());
        hinted(&mut stream, since);
    });
}

#[test]
fn serves_a_client_that_begins_late() {
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| builder);
        let stream = server.connect();
        thread::sleep(IDLE * 3 / 4);
        let mut stream = secure(stream, None);
        stream.write_all(b"late").unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        assert_eq!(server.report(), Report::Outcome(1, "kept", None));
    });
}

#[test]
fn a_handshake_counts_against_the_connection_limit() {
    both(|threading| {
        let one = NonZeroUsize::new(1).unwrap();
        let server = RunningServer::new(threading, open(), |builder| builder.max_connections(one));
        let holding = server.connect();
        let waiting = thread::spawn({
            let port = server.address.port();
            move || client().build().unwrap().send("127.0.0.1", port, &b"x"[..])
        });
        assert_eq!(server.report(), Report::Handshake("tls-silent"));
        assert!(waiting.join().unwrap().unwrap().duration > IDLE / 2);
        assert_eq!(server.report(), Report::Outcome(1, "kept", None));
        drop(holding);
    });
}

#[test]
fn limits_connections_per_identity() {
    both(|threading| {
        let [alice, bob] = [(), ()].map(|()| Identity::of(Default::default()));
        let tls = listed(&[(&alice, "alice"), (&bob, "bob")]);
        let max = NonZeroU32::new(2).unwrap();
        let server = RunningServer::new(threading, tls, |builder| builder.max_per_identity(max));
        let held = [server.secure(Some(&alice)), server.secure(Some(&alice))];
        let client = Client::builder().tls(client_config(SERVER.pin(), Some(&alice)));
        let client = client.build().unwrap();
        let send = || client.send("127.0.0.1", server.address.port(), &b"x"[..]);
        assert!(send().is_err());
        assert_eq!(server.report(), Report::Handshake("tls-too-many"));
        let other = server.secure(Some(&bob));
        drop(held);
        for _ in 0..2 {
            assert!(matches!(server.report(), Report::Outcome(_, "truncated", Some(_))));
        }
        send().unwrap();
        drop(other);
    });
}

#[test]
fn a_panic_during_a_handshake_ends_only_that_connection() {
    both(|threading| {
        let alice = Identity::of(Default::default());
        let known: KnownClients = format!("{} alice\n", alice.pin()).parse().unwrap();
        let panics = AtomicBool::new(true);
        let tls = ServerTls::new(server_config(Some(known))).identify(move |_| {
            assert!(!panics.swap(false, Ordering::SeqCst), "a panic of the program's code");
            Some("alice".to_owned())
        });
        let max = NonZeroU32::new(1).unwrap();
        let server = RunningServer::new(threading, tls, |builder| builder.max_per_ip(max));
        let client = Client::builder().tls(client_config(SERVER.pin(), Some(&alice)));
        let client = client.build().unwrap();
        let send = || client.send("127.0.0.1", server.address.port(), &b"x"[..]);
        send().unwrap_err();
        // The first client sees the reset before its connection stops counting.
        thread::sleep(Duration::from_millis(200));
        send().expect("the first connection no longer counts");
        assert_eq!(server.report(), Report::Outcome(1, "kept", Some("alice".into())));
    });
}

#[test]
fn set_tls_applies_to_later_connections() {
    both(|threading| {
        let [alice, bob] = [(), ()].map(|()| Identity::of(Default::default()));
        let server = RunningServer::new(threading, listed(&[(&alice, "alice")]), |builder| builder);
        let mut before = server.secure(Some(&alice));
        server.handle.set_tls(listed(&[(&bob, "bob")]));
        server.secure(Some(&bob));
        assert_eq!(server.report(), Report::Outcome(2, "truncated", Some("bob".into())));
        before.conn.send_close_notify();
        before.flush().unwrap();
        assert_eq!(server.report(), Report::Outcome(1, "kept", Some("alice".into())));
        let refused = Client::builder().tls(client_config(SERVER.pin(), Some(&alice)));
        let refused = refused.build().unwrap();
        assert!(refused.send("127.0.0.1", server.address.port(), &b"x"[..]).is_err());
        assert_eq!(server.report(), Report::Handshake("tls-unknown-client"));
    });
}

#[test]
fn stopping_ends_handshakes_too() {
    both(|threading| {
        let server = RunningServer::new(threading, open(), |builder| {
            builder.idle_timeout(Duration::from_secs(60))
        });
        let waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
        thread::sleep(Duration::from_millis(50));
        drop(server);
        drop(waiting);
    });
}
