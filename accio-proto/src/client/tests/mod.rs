//! Tests of the client with scripted peers on loopback.

mod connect;
mod content;
#[cfg(feature = "digest")]
mod digests;
mod ends;
mod handshake;

mod local;
mod outcome;
mod pipes;
mod required_tls;
mod stalls;
mod whole_upload;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::connection::Connection;
use super::*;
use crate::dialect::{FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION};
use crate::fast_path::{FastPath, FastPaths};
use crate::handshake::HandshakeError;
use crate::limits;
use crate::sys::socket::reset_on_close;

/// Maximum duration of a step; a test that takes longer fails.
const BOUND: Duration = Duration::from_secs(20);
/// Time limit of a client in tests in which it expires.
const SHORT: Duration = Duration::from_millis(300);
/// Maximum delay of a time limit on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

struct Peer<T> {
    port: u16,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Peer<T> {
    /// Accepts one connection and runs `script` on it.
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

/// Connects like [`Client::send`] and returns the connection, for tests of single steps.
fn connect(client: &Client, port: u16) -> Connection<'_> {
    let (stream, address) = client.settings.connect("127.0.0.1", port, None).unwrap();
    Connection::new(&client.settings, stream, None, address, None).unwrap()
}

/// Returns content whose blocks all differ.
fn pattern(length: usize) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let block: Vec<u8> = (0..BLOCK).map(|i| (i % 251) as u8 ^ (i >> 8) as u8).collect();
    // Calculating each byte takes seconds without optimization.
    let mut bytes = block.repeat(length.div_ceil(BLOCK));
    for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
        block[..8].copy_from_slice(&(index as u64).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// Returns a file of zeroes that takes no time to create.
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

/// Expects no byte for a while.
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

/// Returns a server that follows the protocol.
fn good(dialect: Dialect) -> Peer<Vec<u8>> {
    Peer::new(move |mut stream| {
        greet(&mut stream, dialect);
        rest(&mut stream).unwrap()
    })
}

fn reset(stream: TcpStream) {
    reset_on_close(&stream, true).unwrap();
}

/// Returns whether the peer sees a reset instead of a FIN.
fn saw_reset(mut stream: TcpStream) -> bool {
    matches!(rest(&mut stream), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

/// Creates a pipe whose far end is fed by `feed` in a thread.
fn pipe(feed: impl FnOnce(File) + Send + 'static) -> (File, JoinHandle<()>) {
    let (read, write) = io::pipe().unwrap();
    let file = |end: std::os::fd::OwnedFd| File::from(end);
    let write = file(write.into());
    (file(read.into()), thread::spawn(move || feed(write)))
}
