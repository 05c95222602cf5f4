//! `--drain`: shutdown with and without time for running transfers.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{BUSY, Place, Server, connect, finish, until, upload};

fn half_a_file(server: &Server) -> TcpStream {
    let mut stream = connect(server.address()).unwrap();
    stream.write_all(b"half ").unwrap();
    stream
}

fn is_refused(server: &Server) -> bool {
    matches!(TcpStream::connect(server.address()), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn finishes_transfers_while_refusing_new_clients() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let place = Place::new();
        let mut server = Server::start(&place, &["--drain", "15"]);
        upload(server.address(), b"before").unwrap();
        let mut stream = half_a_file(&server);
        server.signal(signal);
        until("it listens no more", || is_refused(&server));
        stream.write_all(b"done").unwrap();
        let start = Instant::now();
        finish(stream).unwrap();
        assert_eq!(server.wait().code(), Some(0));
        assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
        assert_eq!(place.read(2).unwrap(), b"half done");
    }
}

#[test]
fn aborts_transfers_that_exceed_the_drain_time() {
    let place = Place::new();
    let mut server = Server::start(&place, &["--drain", "1.5"]);
    let stream = half_a_file(&server);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let (took, drain) = (start.elapsed(), Duration::from_millis(1500));
    assert!((drain..drain + BUSY).contains(&took), "{took:?}");
    finish(stream).unwrap_err();
    assert_eq!(place.read(1).unwrap(), b"ERROR");
    server.line("1 transfer did not finish in time");
}

#[test]
fn a_second_signal_ends_the_drain_at_once() {
    let place = Place::new();
    let mut server = Server::start(&place, &["--drain", "60"]);
    let stream = half_a_file(&server);
    server.signal(Signal::TERM);
    until("it listens no more", || is_refused(&server));
    let start = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(0));
    assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
    finish(stream).unwrap_err();
    assert_eq!(place.read(1).unwrap(), b"ERROR");
}

#[test]
fn aborts_transfers_at_once_without_drain() {
    let place = Place::new();
    let server = Server::start(&place, &[]);
    let stream = half_a_file(&server);
    server.stop(Duration::from_secs(1));
    finish(stream).unwrap_err();
    assert_eq!(place.read(1).unwrap(), b"ERROR");
}
