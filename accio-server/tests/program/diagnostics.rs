//! Conditions that must not stop the server: a log that is not read, and signals without a meaning.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::{ChildStderr, Stdio};
use std::time::{Duration, Instant};

use accio_harness::process::{AtDrop, Process};
use accio_harness::resource_limits::raise_descriptor_limit;
use rustix::process::Signal;

use super::harness::{
    BOUND, BUSY, Place, Server, connect, finish, free_port, program, until, upload,
};

const SECOND: Duration = Duration::from_secs(1);
/// Uploads whose lines at `-vv`, about 160 bytes each, exceed the pipe and the queue of 256 KiB.
const MORE_THAN_THE_LOG_HOLDS: u64 = 2_000;

/// A server whose stderr is a small pipe that is not read.
struct Unread {
    process: Process,
    stderr: ChildStderr,
    address: SocketAddr,
}

impl Unread {
    fn start(place: &Place, flags: &[&str]) -> Self {
        let port = free_port();
        let mut command = program();
        command.args([&port.to_string(), &place.dir(), "--bind", "127.0.0.1"]).args(flags);
        command.stderr(Stdio::piped());
        let mut process = Process::spawn_logged(command, None, AtDrop::Kill).unwrap();
        let stderr = process.take_error().unwrap();
        rustix::pipe::fcntl_setpipe_size(&stderr, 4096).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("it listens", || upload(address, b"").is_ok());
        Unread { process, stderr, address }
    }

    /// Sends SIGTERM and expects exit code 0 within a second, or [`BUSY`] later.
    fn stop(self) {
        let (took, _) = self.end();
        assert!(took < SECOND + BUSY, "{took:?}");
    }

    /// Sends SIGTERM and expects exit code 0. Returns how long that took, and the text on stderr.
    fn end(mut self) -> (Duration, String) {
        let start = Instant::now();
        self.process.signal(Signal::TERM).unwrap();
        assert_eq!(self.process.wait(BOUND).unwrap().status.code(), Some(0));
        let took = start.elapsed();
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        (took, text)
    }
}

#[test]
fn an_unread_log_blocks_neither_uploads_nor_shutdown() {
    let place = Place::new();
    let mut server = Unread::start(&place, &["-vv"]);
    for _ in 0..MORE_THAN_THE_LOG_HOLDS {
        upload(server.address, b"content").unwrap();
    }
    // Once stderr is read again, the log says how many lines are missing.
    let mut text = String::new();
    let mut part = [0; 4096];
    while !text.contains("stderr was not read: ") {
        match server.stderr.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            count => text += std::str::from_utf8(&part[..count.unwrap()]).unwrap(),
        }
    }
    assert!(text.lines().rev().skip(1).all(|line| line.contains("] ") || line.contains(" on ")));
    server.stop();
}

#[test]
fn shutdown_does_not_wait_for_an_unread_log() {
    const IDLE: u64 = 300;
    if raise_descriptor_limit(None).unwrap().is_some_and(|limit| limit < 2 * IDLE + 100) {
        let _ = writeln!(io::stderr(), "skipped: no descriptors for {IDLE} connections");
        return;
    }
    for uploads in [0, MORE_THAN_THE_LOG_HOLDS] {
        // One shutdown may be late or leave markers out because of other processes on this machine.
        // A shutdown that waits for the log is late each time.
        let in_time = (0..5).any(|_| shuts_down_in_time(uploads, IDLE));
        assert!(in_time, "{uploads} uploads: late each time");
    }
}

/// Ends a server with `idle` connections after some uploads. Its log is not read. Returns whether
/// that took less than a second and every idle connection has its marker.
fn shuts_down_in_time(uploads: u64, idle: u64) -> bool {
    let place = Place::new();
    let server = Unread::start(&place, &["-vv"]);
    for _ in 0..uploads {
        upload(server.address, b"content").unwrap();
    }
    // Each is aborted with a line in the log; together, they exceed the pipe.
    let idle: Vec<_> = (0..idle).map(|_| connect(server.address).unwrap()).collect();
    let (took, text) = server.end();
    assert!(text.len() <= 4096 + (256 << 10));
    let files = std::fs::read_dir(place.path("received")).unwrap();
    let files = files.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    took < SECOND && files.filter(|content| content == b"ERROR").count() == idle.len()
}

#[test]
fn ignores_signals_without_a_meaning() {
    let place = Place::new();
    let server = Server::start(&place, &["-v"]);
    let mut stream = connect(server.address()).unwrap();
    stream.write_all(b"content").unwrap();
    let signals = [Signal::USR1, Signal::USR2, Signal::HUP, Signal::ALARM, Signal::PROF];
    for signal in signals {
        server.signal(signal);
        // Leaves time to handle each signal before the next one.
        std::thread::sleep(Duration::from_millis(20));
    }
    server.line("has no effect");
    finish(stream).unwrap();
    assert_eq!(place.read(1).unwrap(), b"content");
    server.stop(SECOND);
}
