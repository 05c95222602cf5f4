//! The client against scripted peers on loopback.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use super::*;
use crate::dialect::{FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION};
use crate::sys::client::reset_on_close;
use crate::{FastPath, handshake::HandshakeError};

/// Nothing in a test takes longer, or it fails.
const BOUND: Duration = Duration::from_secs(20);
/// The clients' limits, where one is to pass.
const SHORT: Duration = Duration::from_millis(300);
/// What a limit may be late by on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

struct Peer<T> {
    port: u16,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Peer<T> {
    /// Accepts one connection and plays `script` with it.
    fn new(script: impl FnOnce(TcpStream) -> T + Send + 'static) -> Self {
        Peer::at("127.0.0.1:0", script)
    }

    fn at(address: &str, script: impl FnOnce(TcpStream) -> T + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let thread = thread::spawn(move || {
            let end = Instant::now() + BOUND;
            let stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
                    Err(error) => panic!("no client came: {error}"),
                }
            };
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(BOUND)).unwrap();
            script(stream)
        });
        Peer { port, thread }
    }

    fn end(self) -> T {
        self.thread.join().unwrap()
    }
}

fn builder() -> ClientBuilder {
    Client::builder()
        .connect_timeout(BOUND)
        .handshake_timeout(BOUND)
        .stall_timeout(BOUND)
        .confirm_timeout(BOUND)
}

fn client() -> Client {
    builder().build().unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8 ^ (i >> 8) as u8).collect()
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// A file of zeroes, made at once.
fn sparse(size: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    file
}

fn rest(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

fn expect(stream: &mut TcpStream, due: &[u8]) {
    let mut bytes = vec![0; due.len()];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, due);
}

/// No byte comes for a while.
fn expect_silence(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(BOUND)).unwrap();
}

fn greet(stream: &mut TcpStream, dialect: Dialect) {
    if dialect != Dialect::Direct {
        stream.write_all(GREETING).unwrap();
    }
    if dialect == Dialect::Confirm {
        expect(stream, FIRST_CONFIRMATION);
        stream.write_all(GREETING).unwrap();
        expect(stream, SECOND_CONFIRMATION);
    }
}

/// A server that does everything right.
fn good(dialect: Dialect) -> Peer<Vec<u8>> {
    Peer::new(move |mut stream| {
        greet(&mut stream, dialect);
        rest(&mut stream).unwrap()
    })
}

fn reset(stream: TcpStream) {
    reset_on_close(&stream, true).unwrap();
}

/// The peer sees the connection reset, never a clean end.
fn saw_reset(mut stream: TcpStream) -> bool {
    matches!(rest(&mut stream), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn every_dialect_size_and_path_arrives_whole() {
    for dialect in Dialect::ALL {
        for size in [0, 1, 7, 4096, 5 << 20] {
            for paths in [FastPaths::default(), FastPaths::without([FastPath::Sendfile])] {
                let content = pattern(size);
                let peer = good(dialect);
                let client = builder().dialect(dialect).fast_paths(paths).build().unwrap();
                let sent = client.send("127.0.0.1", peer.port, file(&content)).unwrap();
                assert_eq!((sent.bytes, sent.confirmed), (size as u64, true));
                assert_eq!((sent.dialect, sent.peer.port()), (dialect, peer.port));
                assert!(peer.end() == content, "{dialect}, {size} bytes");
            }
        }
    }
}

#[test]
fn any_reader_can_be_sent() {
    let content = pattern(3 << 20);
    for cut in [0, 1, 5000, content.len()] {
        let peer = good(Dialect::Accio);
        let (head, tail) = content.split_at(cut);
        let source = Source::reader(head.chain(tail));
        client().send("127.0.0.1", peer.port, source).unwrap();
        assert!(peer.end() == content);
    }
    let peer = good(Dialect::Accio);
    client().send("127.0.0.1", peer.port, &content[..10]).unwrap();
    assert_eq!(peer.end(), content[..10]);
}

#[test]
fn a_file_is_sent_from_its_position() {
    let content = pattern(100_000);
    for paths in [FastPaths::default(), FastPaths::without([FastPath::Sendfile])] {
        let peer = good(Dialect::Accio);
        let mut file = file(&content);
        file.seek(SeekFrom::Start(70_000)).unwrap();
        let client = builder().fast_paths(paths).build().unwrap();
        assert_eq!(client.send("127.0.0.1", peer.port, file).unwrap().bytes, 30_000);
        assert!(peer.end() == content[70_000..]);
    }
}

#[test]
fn a_refused_sendfile_goes_on_portably() {
    // A regular file of size 0 with content, and of a kind that sendfile does not take.
    let content = fs::read("/proc/self/auxv").unwrap();
    let client = client();
    let peer = good(Dialect::Accio);
    let source = File::open("/proc/self/auxv").unwrap();
    client.send("127.0.0.1", peer.port, source).unwrap();
    assert_eq!(peer.end(), content);
    assert!(!client.fast_paths.has(FastPath::Sendfile), "refused once and for all");

    let peer = good(Dialect::Accio);
    client.send("127.0.0.1", peer.port, file(b"next")).unwrap();
    assert_eq!(peer.end(), b"next");
}

#[test]
fn names_and_ipv6_addresses_connect() {
    for (listen, host) in [("127.0.0.1:0", "localhost"), ("[::1]:0", "::1"), ("[::1]:0", "[::1]")] {
        let peer = Peer::at(listen, |mut stream| {
            greet(&mut stream, Dialect::Accio);
            rest(&mut stream).unwrap()
        });
        client().send(host, peer.port, &b"hello"[..]).unwrap();
        assert_eq!(peer.end(), b"hello");
    }
}

#[test]
fn nothing_is_sent_before_the_whole_handshake() {
    for dialect in [Dialect::Accio, Dialect::Confirm] {
        let peer = Peer::new(move |mut stream| {
            stream.set_nodelay(true).unwrap();
            let drip = |stream: &mut TcpStream| {
                for byte in GREETING {
                    expect_silence(stream);
                    stream.write_all(&[*byte]).unwrap();
                }
            };
            drip(&mut stream);
            if dialect == Dialect::Confirm {
                expect(&mut stream, FIRST_CONFIRMATION);
                drip(&mut stream);
                expect(&mut stream, SECOND_CONFIRMATION);
            }
            rest(&mut stream).unwrap()
        });
        let client = builder().dialect(dialect).build().unwrap();
        client.send("127.0.0.1", peer.port, file(b"content")).unwrap();
        assert_eq!(peer.end(), b"content");
    }
}

#[test]
fn a_refused_connection() {
    let port = {
        // Bound and not listening: refused, and nobody else can take the port.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let error = client().send("127.0.0.1", port, file(b"x")).unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("connect to 127.0.0.1 port {port}: connection refused")
        );
        assert_eq!((error.exit_code(), error.is_local()), (7, false));
        port
    };
    let error = client().send("localhost", port, file(b"x")).unwrap_err();
    assert!(error.to_string().ends_with(": connection refused"), "{error}");
}

#[test]
fn an_address_that_never_answers() {
    // A listener whose backlog is full drops further SYNs.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = listener.unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let waiting: Vec<_> =
        (0..3).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50))).collect();
    assert!(waiting.last().unwrap().is_err(), "the backlog is full");

    let start = Instant::now();
    let client = builder().connect_timeout(SHORT).build().unwrap();
    let error = client.send("127.0.0.1", address.port(), file(b"x")).unwrap_err();
    assert!(matches!(error, ClientError::ConnectTimeout { .. }), "{error:?}");
    // The connecting poll counts in milliseconds, and rounds down.
    let least = SHORT - Duration::from_millis(2);
    assert!((least..SHORT + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(error.exit_code(), 28);
    assert!(error.to_string().ends_with("no answer within 300ms"), "{error}");
}

#[test]
fn an_unknown_host_within_bounded_time() {
    let start = Instant::now();
    let client = builder().connect_timeout(SHORT * 3).build().unwrap();
    let error = client.send("does-not-exist.invalid", 9, file(b"x")).unwrap_err();
    assert!(start.elapsed() < SHORT * 3 + SLACK);
    match &error {
        ClientError::Resolve { .. } => assert_eq!(error.exit_code(), 6),
        ClientError::ResolveTimeout { .. } => assert_eq!(error.exit_code(), 28),
        _ => panic!("{error:?}"),
    }
    assert!(error.to_string().starts_with(r#"resolve "does-not-exist.invalid": "#), "{error}");

    for host in ["", "nul\0nul", "two words"] {
        let error = client.send(host, 9, file(b"x")).unwrap_err();
        assert!(error.to_string().starts_with(&format!("resolve {host:?}: ")), "{error}");
    }
}

#[test]
fn a_wrong_greeting_ends_it_at_once() {
    for (dialect, wire, good) in [
        (Dialect::Accio, &b"HTTP/1.1 400\r\n"[..], 0),
        (Dialect::Accio, b"accio\n", 5),
        (Dialect::Confirm, b"accio\r\naccia", 4),
    ] {
        let peer = Peer::new(move |mut stream| {
            stream.write_all(wire).unwrap();
            rest(&mut stream)
        });
        let start = Instant::now();
        let client = builder().dialect(dialect).build().unwrap();
        let error = client.send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
        let ClientError::Handshake { source: HandshakeError::Mismatch { got, .. }, .. } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(got.len(), good + 1);
        assert_eq!(error.exit_code(), 56);
        assert!(start.elapsed() < SLACK);
        assert_eq!(peer.end().unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_silent_server_and_one_that_drips_end_at_the_same_deadline() {
    for drip in [false, true] {
        let peer = Peer::new(move |mut stream| {
            for byte in GREETING.iter().filter(|_| drip) {
                thread::sleep(SHORT / 3);
                if stream.write_all(&[*byte]).is_err() {
                    return true;
                }
            }
            saw_reset(stream)
        });
        let start = Instant::now();
        let client = builder().handshake_timeout(SHORT).build().unwrap();
        let error = client.send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
        let took = start.elapsed();
        assert!(matches!(error, ClientError::HandshakeTimeout { .. }), "{error:?}");
        assert!((SHORT..SHORT + SLACK).contains(&took), "{took:?}");
        assert_eq!(error.exit_code(), 28);
        assert!(peer.end(), "the server sees a reset");
    }
}

#[test]
fn a_close_or_reset_within_the_handshake() {
    let peer = Peer::new(|mut stream| stream.write_all(&GREETING[..3]).unwrap());
    let error = client().send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
    assert!(error.to_string().ends_with(r#"closed after 3 of 7 bytes of "accio\r\n""#), "{error}");
    peer.end();

    let peer = Peer::new(reset);
    let error = client().send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
    assert!(matches!(error, ClientError::HandshakeBroken { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 56);
    peer.end();
}

/// Sends a file that is larger than all buffers, by both paths, to a peer that ends it early.
fn ended_mid_file(end: fn(TcpStream)) -> Vec<ClientError> {
    let paths = [FastPaths::default(), FastPaths::without([FastPath::Sendfile])];
    let errors = paths.into_iter().map(|paths| {
        let peer = Peer::new(move |mut stream| {
            greet(&mut stream, Dialect::Accio);
            stream.read_exact(&mut [0; 100_000]).unwrap();
            end(stream);
        });
        let client = builder().fast_paths(paths).build().unwrap();
        let start = Instant::now();
        let error = client.send("127.0.0.1", peer.port, sparse(64 << 20)).unwrap_err();
        assert!(start.elapsed() < SLACK);
        assert_eq!(error.exit_code(), 55);
        peer.end();
        error
    });
    errors.collect()
}

#[test]
fn a_reset_mid_file() {
    for error in ended_mid_file(reset) {
        assert!(matches!(error, ClientError::Reset { .. }), "{error:?}");
    }
}

#[test]
fn a_reset_that_another_call_was_told_of_is_still_a_reset() {
    let (told, tell) = mpsc::channel();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        reset(stream);
        told.send(()).unwrap();
    });
    let client = client();
    let (stream, address) = client.connect("127.0.0.1", peer.port).unwrap();
    let mut connection = Connection::new(&client, stream, address).unwrap();
    connection.greet().unwrap();
    tell.recv_timeout(BOUND).unwrap();
    peer.end();
    assert!(connection.stream.take_error().unwrap().is_some());
    let error = connection.check_open().unwrap_err();
    assert!(matches!(error, ClientError::Reset { .. }), "{error:?}");
}

#[test]
fn a_fin_mid_file() {
    let errors = ended_mid_file(|mut stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(rest(&mut stream).is_err(), "the client resets");
    });
    for error in errors {
        assert!(matches!(error, ClientError::ClosedEarly { .. }), "{error:?}");
    }
}

#[test]
fn a_fin_before_a_small_file() {
    // The greeting and the FIN come in one segment: the file would go into a connection that is
    // over.
    let peer = Peer::new(|mut stream| {
        let flags = rustix::net::SendFlags::MORE;
        rustix::net::send(&stream, GREETING, flags).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        rest(&mut stream)
    });
    let error = client().send("127.0.0.1", peer.port, file(b"small")).unwrap_err();
    assert!(matches!(error, ClientError::ClosedEarly { .. }), "{error:?}");
    assert_eq!(peer.end().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_fin_that_was_there_before_ours_confirms_nothing() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |stream| {
        let flags = rustix::net::SendFlags::MORE;
        rustix::net::send(&stream, GREETING, flags).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = over.recv_timeout(BOUND);
    });
    let client = client();
    let (stream, address) = client.connect("127.0.0.1", peer.port).unwrap();
    let mut connection = Connection::new(&client, stream, address).unwrap();
    connection.greet().unwrap();
    // Without the checks in between that a send makes.
    let result = connection.finish();
    assert!(matches!(result, Err(ClientError::ClosedEarly { .. })), "{result:?}");
    drop(done);
    peer.end();
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", not(accio_portable))),
    ignore = "only Linux tells what is acknowledged"
)]
fn a_fin_that_does_not_acknowledge_everything_confirms_nothing() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(128 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        // Long enough for all of the file, and the client's FIN, to be queued.
        thread::sleep(SHORT);
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = over.recv_timeout(BOUND);
        saw_reset(stream)
    });
    let result = client().send("127.0.0.1", peer.port, sparse(1 << 20));
    let Err(ClientError::ClosedEarly { sent, .. }) = result else { panic!("{result:?}") };
    assert_eq!(sent, 1 << 20);
    drop(done);
    assert!(peer.end());
}

#[test]
fn a_server_that_closes_as_the_file_leaves_never_confirms_it() {
    // Whether its FIN is seen before ours leaves or after, it is no confirmation.
    for round in 0..200 {
        let peer = Peer::new(move |mut stream| {
            stream.write_all(GREETING).unwrap();
            for _ in 0..round * 50 {
                std::hint::spin_loop();
            }
            // Closed with nothing read: a FIN, if the file is not there yet, else a reset.
        });
        let result = client().send("127.0.0.1", peer.port, file(b"small"));
        peer.end();
        assert!(result.is_err(), "round {round}: {result:?}");
    }
}

#[test]
fn a_reset_instead_of_the_confirmation() {
    for delay in [Duration::ZERO, Duration::from_millis(50)] {
        let peer = Peer::new(move |mut stream| {
            greet(&mut stream, Dialect::Accio);
            assert_eq!(rest(&mut stream).unwrap(), b"content");
            thread::sleep(delay);
            reset(stream);
        });
        let error = client().send("127.0.0.1", peer.port, file(b"content")).unwrap_err();
        assert!(matches!(error, ClientError::NotKept { .. }), "{error:?}");
        assert_eq!(error.exit_code(), 56);
        peer.end();
    }
}

#[test]
fn a_server_that_closes_late_but_in_time_confirms() {
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        let bytes = rest(&mut stream).unwrap();
        thread::sleep(SHORT);
        bytes
    });
    let sent = client().send("127.0.0.1", peer.port, file(b"content")).unwrap();
    assert!(sent.confirmed && sent.duration >= SHORT);
    assert_eq!(peer.end(), b"content");
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", not(accio_portable))),
    ignore = "only Linux tells what is acknowledged"
)]
fn a_server_that_never_closes_has_it_unconfirmed_and_stray_bytes_gain_it_no_time() {
    for stray in [false, true] {
        let (done, over) = mpsc::channel::<()>();
        let peer = Peer::new(move |mut stream| {
            greet(&mut stream, Dialect::Accio);
            stream.write_all(GREETING).unwrap();
            let bytes = rest(&mut stream).unwrap();
            if stray {
                while over.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                    let _ = stream.write(b"stray");
                    thread::sleep(SHORT / 10);
                }
            }
            let _ = over.recv_timeout(BOUND);
            bytes
        });
        let start = Instant::now();
        let client = builder().confirm_timeout(SHORT).build().unwrap();
        let sent = client.send("127.0.0.1", peer.port, file(b"content")).unwrap();
        assert!(!sent.confirmed);
        assert!((SHORT..SHORT + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
        drop(done);
        assert_eq!(peer.end(), b"content", "a clean end, no reset");
    }
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", not(accio_portable))),
    ignore = "only Linux tells what is acknowledged"
)]
fn a_closed_window_is_a_stall_while_sending_and_after_it() {
    for paths in [FastPaths::default(), FastPaths::without([FastPath::Sendfile])] {
        // The larger does not fit into the buffers, so the client is stuck before its FIN; the
        // smaller fits into ours and not into the peer's.
        for (size, queued) in [(64 << 20, false), (1 << 20, true)] {
            let (done, over) = mpsc::channel::<()>();
            let peer = Peer::new(move |mut stream| {
                // Not so small that window probes alone would fill it, bit by bit.
                socket2::SockRef::from(&stream).set_recv_buffer_size(128 << 10).unwrap();
                greet(&mut stream, Dialect::Accio);
                let _ = over.recv_timeout(BOUND);
                saw_reset(stream)
            });
            let client = builder()
                .stall_timeout(SHORT)
                .confirm_timeout(SHORT)
                .fast_paths(paths.clone())
                .build()
                .unwrap();
            let start = Instant::now();
            let error = client.send("127.0.0.1", peer.port, sparse(size)).unwrap_err();
            let took = start.elapsed();
            let ClientError::Stalled { sent, .. } = error else { panic!("{error:?}") };
            assert_eq!(sent == size, queued, "{sent} of {size} bytes");
            assert!((SHORT..SHORT + SLACK).contains(&took), "{took:?}");
            assert_eq!(error.exit_code(), 28);
            drop(done);
            assert!(peer.end(), "the server sees a reset, not the end of a file");
        }
    }
}

#[test]
fn a_stall_is_noticed_without_the_kernels_own_limit() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        let _ = over.recv_timeout(BOUND);
    });
    let client = builder().stall_timeout(SHORT).build().unwrap();
    let (stream, address) = client.connect("127.0.0.1", peer.port).unwrap();
    let mut connection = Connection::new(&client, stream, address).unwrap();
    rustix::net::sockopt::set_tcp_user_timeout(&connection.stream, 0).unwrap();
    connection.greet().unwrap();
    let start = Instant::now();
    let error = connection.send(&mut sparse(64 << 20).into()).unwrap_err();
    assert!(matches!(error, ClientError::Stalled { .. }), "{error:?}");
    assert!((SHORT..SHORT + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
    drop(done);
    peer.end();
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", not(accio_portable))),
    ignore = "only Linux tells what is acknowledged"
)]
fn a_server_that_reads_slowly_is_no_stall() {
    // It reads for longer than the limits, with no pause as long as they are.
    let content = pattern(6 << 20);
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(256 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        let mut bytes = Vec::new();
        let mut buffer = [0; 64 << 10];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return bytes,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
            thread::sleep(Duration::from_millis(30));
        }
    });
    let limit = Duration::from_millis(500);
    let client = builder().stall_timeout(limit).confirm_timeout(limit).build().unwrap();
    let sent = client.send("127.0.0.1", peer.port, file(&content)).unwrap();
    assert!(sent.confirmed && sent.duration > limit, "{sent:?}");
    assert!(peer.end() == content);
}

#[test]
fn a_source_that_is_slow_is_no_stall() {
    struct Slow(u8);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            thread::sleep(SHORT * 2);
            self.0 -= 1;
            buffer[0] = self.0;
            Ok(usize::from(self.0 > 0))
        }
    }
    let peer = good(Dialect::Accio);
    let client = builder().stall_timeout(SHORT).build().unwrap();
    client.send("127.0.0.1", peer.port, Source::reader(Slow(3))).unwrap();
    assert_eq!(peer.end(), [2, 1]);
}

#[test]
fn a_source_that_fails_resets_the_connection() {
    struct Bad;
    impl Read for Bad {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(rustix::io::Errno::IO.into())
        }
    }
    let directory = || Source::from(File::open("/").unwrap());
    let write_only = || {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"content").unwrap();
        Source::from(File::options().write(true).open(file.path()).unwrap())
    };
    let broken = || Source::reader((&b"some"[..]).chain(Bad));
    for (source, why) in [
        (directory(), "is a directory"),
        (write_only(), "bad file descriptor"),
        (broken(), "input/output error"),
    ] {
        let peer = Peer::new(|mut stream| {
            greet(&mut stream, Dialect::Accio);
            saw_reset(stream)
        });
        let error = client().send("127.0.0.1", peer.port, source).unwrap_err();
        assert_eq!(error.to_string(), format!("read the source: {why}"));
        assert_eq!((error.exit_code(), error.is_local()), (26, true));
        assert!(peer.end(), "{why}");
    }
}

/// A pipe, its far end fed by `feed` on a thread of its own.
fn pipe(feed: impl FnOnce(File) + Send + 'static) -> (File, JoinHandle<()>) {
    let (read, write) = io::pipe().unwrap();
    let file = |end: std::os::fd::OwnedFd| File::from(end);
    let write = file(write.into());
    (file(read.into()), thread::spawn(move || feed(write)))
}

#[test]
#[cfg_attr(not(all(target_os = "linux", not(accio_portable))), ignore = "only Linux splices")]
fn pipes_are_sent_to_their_end_by_both_paths() {
    let content = pattern(5 << 20);
    for size in [0, 1, 70_000, content.len()] {
        for paths in [FastPaths::default(), FastPaths::without([FastPath::Splice])] {
            let fast = paths.has(FastPath::Splice);
            let peer = good(Dialect::Accio);
            let bytes = content[..size].to_vec();
            let (source, feeder) = pipe(move |mut end| end.write_all(&bytes).unwrap());
            let client = builder().fast_paths(paths).build().unwrap();
            let sent = client.send("127.0.0.1", peer.port, source).unwrap();
            assert_eq!((sent.bytes, sent.confirmed), (size as u64, true));
            assert_eq!(client.fast_paths.has(FastPath::Splice), fast, "never refused here");
            feeder.join().unwrap();
            assert!(peer.end() == content[..size], "{size} bytes");
        }
    }
}

#[test]
fn a_socket_is_sent_like_a_pipe_and_a_character_device_too() {
    let peer = good(Dialect::Accio);
    let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.write_all(b"from a socket").unwrap();
    drop(near);
    let source = File::from(std::os::fd::OwnedFd::from(far));
    client().send("127.0.0.1", peer.port, source).unwrap();
    assert_eq!(peer.end(), b"from a socket");
    let peer = good(Dialect::Accio);
    client().send("127.0.0.1", peer.port, File::open("/dev/null").unwrap()).unwrap();
    assert_eq!(peer.end(), b"");
}

#[test]
fn a_pipe_that_pauses_is_no_stall() {
    let peer = good(Dialect::Accio);
    let (source, feeder) = pipe(|mut end| {
        for part in [b"one", b"two"] {
            thread::sleep(SHORT * 3);
            end.write_all(part).unwrap();
        }
        thread::sleep(SHORT * 3);
    });
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let client = builder().stall_timeout(SHORT).on_progress(move |_| *counted.lock().unwrap() += 1);
    let sent = client.build().unwrap().send("127.0.0.1", peer.port, source).unwrap();
    assert!(sent.confirmed && sent.duration >= SHORT * 9);
    feeder.join().unwrap();
    assert_eq!(peer.end(), b"onetwo");
    assert!(*calls.lock().unwrap() >= 10, "progress is told while the pipe is silent");
}

#[test]
fn a_server_that_goes_away_is_noticed_while_the_pipe_is_silent() {
    type Case = (fn(TcpStream), fn(&ClientError) -> bool);
    let ends: [Case; 2] = [
        (reset, |error| matches!(error, ClientError::Reset { .. })),
        (drop, |error| matches!(error, ClientError::ClosedEarly { .. })),
    ];
    for (end, expected) in ends {
        for paths in [FastPaths::default(), FastPaths::without([FastPath::Splice])] {
            let peer = Peer::new(move |mut stream| {
                greet(&mut stream, Dialect::Accio);
                expect(&mut stream, b"some");
                end(stream);
            });
            let (done, over) = mpsc::channel::<()>();
            let (source, feeder) = pipe(move |mut end| {
                end.write_all(b"some").unwrap();
                let _ = over.recv_timeout(BOUND);
            });
            let start = Instant::now();
            let client = builder().fast_paths(paths).build().unwrap();
            let error = client.send("127.0.0.1", peer.port, source).unwrap_err();
            assert!(expected(&error), "{error:?}");
            assert!(start.elapsed() < SLACK, "at once, not when the pipe says something");
            assert_eq!(error.exit_code(), 55);
            drop(done);
            feeder.join().unwrap();
            peer.end();
        }
    }
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", not(accio_portable))),
    ignore = "only Linux tells what is acknowledged"
)]
fn a_peer_that_owes_an_acknowledgement_is_a_stall_even_while_the_pipe_is_silent() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(64 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        let _ = over.recv_timeout(BOUND);
    });
    let (finish, finished) = mpsc::channel::<()>();
    // More than the peer's buffer holds and less than both do.
    let (source, feeder) = pipe(move |mut end| {
        let _ = end.write_all(&pattern(1 << 20));
        let _ = finished.recv_timeout(BOUND);
    });
    let client = builder().stall_timeout(SHORT).build().unwrap();
    let (stream, address) = client.connect("127.0.0.1", peer.port).unwrap();
    let mut connection = Connection::new(&client, stream, address).unwrap();
    // Without the kernel's own limit.
    rustix::net::sockopt::set_tcp_user_timeout(&connection.stream, 0).unwrap();
    connection.greet().unwrap();
    let start = Instant::now();
    let error = connection.send(&mut source.into()).unwrap_err();
    let ClientError::Stalled { sent, .. } = error else { panic!("{error:?}") };
    assert_eq!(sent, 1 << 20, "all that the pipe had");
    assert!(start.elapsed() < SHORT + SLACK);
    drop((done, finish));
    feeder.join().unwrap();
    peer.end();
}

#[test]
fn a_rate_limit_holds_on_every_path() {
    let content = pattern(300_000);
    let rate = NonZeroU64::new(500_000).unwrap();
    let sources: [fn(&[u8]) -> Source<'static>; 3] = [
        |content| file(content).into(),
        |content| {
            let content = content.to_vec();
            pipe(move |mut end| end.write_all(&content).unwrap()).0.into()
        },
        |content| Source::reader(io::Cursor::new(content.to_vec())),
    ];
    for source in sources {
        for paths in
            [FastPaths::default(), FastPaths::without([FastPath::Sendfile, FastPath::Splice])]
        {
            let peer = good(Dialect::Accio);
            let client = builder().rate_limit(rate).fast_paths(paths).build().unwrap();
            let sent = client.send("127.0.0.1", peer.port, source(&content)).unwrap();
            assert!(peer.end() == content);
            let took = sent.duration;
            assert!((SHORT * 2..SHORT * 2 + SLACK).contains(&took), "{took:?}");
        }
    }
}

#[test]
fn a_rate_below_the_stall_timeout_is_no_stall() {
    let peer = good(Dialect::Accio);
    let rate = NonZeroU64::new(2).unwrap();
    let client = builder().rate_limit(rate).stall_timeout(SHORT).build().unwrap();
    let sent = client.send("127.0.0.1", peer.port, file(b"abc")).unwrap();
    assert!(sent.duration >= Duration::from_millis(1500), "{sent:?}");
    assert_eq!(peer.end(), b"abc");
}

#[test]
fn the_family_and_the_source_address_choose_among_the_addresses() {
    for family in [Family::Any, Family::Ipv4] {
        let peer = good(Dialect::Accio);
        let client = builder().family(family).build().unwrap();
        let sent = client.send("127.0.0.1", peer.port, &b""[..]).unwrap();
        assert!(family.has(sent.peer.ip()));
        peer.end();
    }
    for (builder, why) in [
        (builder().family(Family::Ipv6), "IPv6"),
        (builder().source_address("::1".parse().unwrap()), "IPv6"),
    ] {
        let error = builder.build().unwrap().send("127.0.0.1", 9, &b""[..]).unwrap_err();
        assert_eq!(error.to_string(), format!(r#"resolve "127.0.0.1": it has no {why} address"#));
        assert_eq!(error.exit_code(), 6);
    }

    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        stream.peer_addr().unwrap().ip()
    });
    let client = builder().source_address(source).build().unwrap();
    // Its end closes without reading to the end; only where it came from matters.
    let _ = client.send("127.0.0.1", peer.port, &b""[..]);
    assert_eq!(peer.end(), source);

    // Documentation's own network: no address of this machine.
    let foreign: IpAddr = "203.0.113.7".parse().unwrap();
    let client = builder().source_address(foreign).build().unwrap();
    let error = client.send("127.0.0.1", 9, &b""[..]).unwrap_err();
    let expected = "source address 203.0.113.7: cannot assign requested address";
    assert_eq!((error.to_string().as_str(), error.exit_code()), (expected, 45));
    assert!(error.is_local() && !error.is_transient());
}

#[test]
fn events_come_in_order() {
    for dialect in Dialect::ALL {
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = events.clone();
        let peer = good(dialect);
        let client = builder()
            .dialect(dialect)
            .on_event(move |event| kept.lock().unwrap().push(event.clone()))
            .build()
            .unwrap();
        let sent = client.send("127.0.0.1", peer.port, file(b"content")).unwrap();
        peer.end();
        let events = events.lock().unwrap();
        let [
            ClientEvent::Resolved { addresses, .. },
            ClientEvent::Connected { peer: connected, local: Some(_), .. },
            ClientEvent::Greeted { peer: greeted, dialect: spoken, .. },
            ClientEvent::Sent { bytes: 7, .. },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((&addresses[..], *spoken), (&[sent.peer][..], dialect));
        assert_eq!([connected, greeted], [&sent.peer; 2]);
    }
}

#[test]
fn a_probe_says_what_it_hears_and_sends_nothing() {
    // Longer than a busy machine may keep the peer from its first word.
    let quiet = SHORT * 4;
    for (wire, stays, finding) in [
        (&b"accio\r\n"[..], true, Finding::Greets),
        (b"", true, Finding::Silent),
        (b"acc", true, Finding::Stops),
        (b"acc", false, Finding::Hangs),
        (b"", false, Finding::Hangs),
        (b"accio\r\n", false, Finding::Hangs),
        (b"accio\r\naccio\r\n", true, Finding::Foreign),
        (b"220 \x1b[2J ready\r\n", true, Finding::Foreign),
        (&[b'x'; 5000], true, Finding::Foreign),
    ] {
        let peer = Peer::new(move |mut stream| {
            if stays {
                stream.write_all(wire).unwrap();
            } else {
                // In one segment with the FIN.
                rustix::net::send(&stream, wire, rustix::net::SendFlags::MORE).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            }
            let mut sent = Vec::new();
            let end = stream.read_to_end(&mut sent).map_err(|error| error.kind());
            (sent, end)
        });
        let client = builder().handshake_timeout(quiet).build().unwrap();
        let start = Instant::now();
        let probe = client.probe("127.0.0.1", peer.port).unwrap();
        assert!(start.elapsed() < quiet + SLACK);
        assert_eq!(probe.addresses.len(), 1);
        let [Probed { address, result: Ok(heard), .. }] = &probe.probed[..] else {
            panic!("{probe:?}")
        };
        assert_eq!((address.port(), heard.finding), (peer.port, finding), "{heard:?}");
        assert_eq!(heard.bytes, wire[..wire.len().min(limits::PROBE_BYTES)]);
        assert_eq!(heard.spoke_after.is_some(), !wire.is_empty());
        assert_eq!(peer.end(), (vec![], Err(ErrorKind::ConnectionReset)), "{finding:?}");
    }
}

#[test]
fn a_probe_tries_both_families() {
    let v4 = Peer::at("127.0.0.1:0", |mut stream| {
        greet(&mut stream, Dialect::Accio);
        saw_reset(stream)
    });
    // localhost is both, or at least IPv4, on every machine; only one is listened on.
    let client = builder().handshake_timeout(SHORT).build().unwrap();
    let probe = client.probe("localhost", v4.port).unwrap();
    for probed in &probe.probed {
        match &probed.result {
            Ok(heard) => assert!(probed.address.is_ipv4() && heard.finding == Finding::Greets),
            Err(error) => {
                assert!(probed.address.is_ipv6());
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
        }
    }
    assert!(probe.probed.iter().any(|probed| probed.result.is_ok()));
    assert!(v4.end());
}

/// Sends a file whose size changes after its first part has left.
fn resized(to: u64) -> (Result<Sent, ClientError>, io::Result<Vec<u8>>) {
    let source = sparse(64 << 20);
    let resize = source.try_clone().unwrap();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        stream.read_exact(&mut [0; 1]).unwrap();
        resize.set_len(to).unwrap();
        rest(&mut stream)
    });
    let result = client().send("127.0.0.1", peer.port, source);
    (result, peer.end())
}

#[test]
fn a_file_that_shrinks_is_an_error_and_one_that_grows_is_sent_to_its_end() {
    let (result, seen) = resized(60 << 20);
    let error = result.unwrap_err();
    let ClientError::Shrank { expected, found } = error else { panic!("{error:?}") };
    assert_eq!((expected, found), (64 << 20, 60 << 20));
    assert_eq!(error.exit_code(), 26);
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (result, seen) = resized(70 << 20);
    assert_eq!(result.unwrap().bytes, 70 << 20);
    assert_eq!(seen.unwrap().len(), (70 << 20) - 1);
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", not(accio_portable))),
    ignore = "only Linux tells what is acknowledged"
)]
fn progress_rises_to_the_whole() {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let kept = reports.clone();
    let content = pattern(16 << 20);
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        thread::sleep(limits::PROGRESS_INTERVAL * 5);
        rest(&mut stream).unwrap().len()
    });
    let client = builder().on_progress(move |at| kept.lock().unwrap().push(at)).build().unwrap();
    client.send("127.0.0.1", peer.port, file(&content)).unwrap();
    assert_eq!(peer.end(), content.len());

    let reports = reports.lock().unwrap();
    assert!(reports.len() >= 4, "{reports:?}");
    let whole = Some(content.len() as u64);
    assert!(reports.is_sorted_by_key(|at| (at.sent, at.acknowledged)), "{reports:?}");
    for at in reports.iter() {
        assert!(at.acknowledged.unwrap() <= at.sent && at.total == whole, "{at:?}");
    }
    let stuck = reports[2];
    assert!(stuck.acknowledged.unwrap() < stuck.sent, "buffered, not arrived: {stuck:?}");
    assert_eq!(reports.last().unwrap().acknowledged, whole);
}

#[test]
fn time_limits_are_checked() {
    for (name, builder) in [
        ("connect_timeout", Client::builder().connect_timeout(Duration::ZERO)),
        ("handshake_timeout", Client::builder().handshake_timeout(Duration::MAX)),
        ("stall_timeout", Client::builder().stall_timeout(Duration::ZERO)),
        (
            "confirm_timeout",
            Client::builder().confirm_timeout(limits::MAX_TIMEOUT + Duration::from_nanos(1)),
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        assert_eq!((error.exit_code(), error.is_local()), (2, true));
    }
    assert!(Client::builder().stall_timeout(limits::MAX_TIMEOUT).build().is_ok());
}
