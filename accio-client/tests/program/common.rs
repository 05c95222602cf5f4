//! Helpers shared by the tests: the program, and peers on loopback.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use accio_harness::process::{AtDrop, Process};
use accio_harness::program::{BOUND, command};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::Value;

/// A running program, killed when dropped.
pub(crate) struct Client(pub(crate) Process);

impl Client {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Client::with(arguments, |_| {})
    }

    /// Starts the program after `change` has modified the command.
    pub(crate) fn with(arguments: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = command(env!("CARGO_BIN_EXE_accio-client"));
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        change(&mut command);
        Client(Process::spawn_logged(command, None, AtDrop::Kill).unwrap())
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.0.wait(BOUND).unwrap().status
    }

    pub(crate) fn finish(mut self) -> Output {
        let status = self.wait();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.0.take_output().unwrap().read_to_end(&mut stdout).unwrap();
        self.0.take_error().unwrap().read_to_end(&mut stderr).unwrap();
        Output { status, stdout, stderr }
    }
}

pub(crate) fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

/// Returns a port that refuses connections until the sockets are dropped: it is the local port of a
/// client, so no other program can listen on it.
pub(crate) fn refusing() -> ((TcpListener, TcpStream), String) {
    let (listener, _) = listen();
    let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    ((listener, taken), port)
}

/// Accepts the next client; fails if none connects in time.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let end = Instant::now() + BOUND;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(BOUND)).unwrap();
                return stream;
            }
            Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("no client came: {error}"),
        }
    }
}

pub(crate) fn file(size: usize) -> (tempfile::NamedTempFile, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![b'x'; size]).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

/// Runs the program, which must fail with a single line while no server listens; returns the exit
/// code and the line.
pub(crate) fn fails(arguments: &[&str]) -> (i32, String) {
    let start = Instant::now();
    let output = Client::start(arguments).finish();
    assert!(start.elapsed() < Duration::from_secs(15), "{arguments:?}: {:?}", start.elapsed());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{arguments:?} says something on stdout");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("ERROR: ") && stderr.ends_with('\n'), "{arguments:?}: {stderr}");
    (output.status.code().expect("it is not killed by a panic"), stderr)
}

/// Starts a server that greets each of `count` clients and keeps their content.
pub(crate) fn serve(count: usize) -> (String, thread::JoinHandle<Vec<Vec<u8>>>) {
    let (listener, port) = listen();
    let serving = thread::spawn(move || {
        let receive = |_| {
            let mut stream = accept(&listener);
            stream.write_all(b"accio\r\n").unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            bytes
        };
        (0..count).map(receive).collect()
    });
    (port, serving)
}

/// Returns the output of a program as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it is not killed by a signal")
}

/// Returns the events of a run; each must be a JSON object on its own line.
pub(crate) fn events(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn named<'e>(events: &'e [Value], name: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// Resets a connection.
pub(crate) fn reset(stream: TcpStream) {
    let linger = rustix::net::sockopt::set_socket_linger;
    linger(&stream, Some(Duration::ZERO)).unwrap();
}

/// Returns a pipe without room: its reading end, its writing end, and the number of bytes in it.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter, usize) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    let mut count = 0;
    for size in [4096, 1] {
        while let Ok(more) = writer.write(&vec![b'\n'; size]) {
            count += more;
        }
    }
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer, count)
}
