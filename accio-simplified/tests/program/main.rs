//! The program from a user's point of view: output, flags, errors, exit codes.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod man_page;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use accio_harness::peer::read;
use accio_harness::ports;
use accio_harness::process::{AtDrop, Input, NO_OWNER, Process};
use accio_harness::program::{BOUND, command, run};
use rustix::process::Signal;

fn program() -> Command {
    command(env!("CARGO_BIN_EXE_server-s"))
}

/// A running server, killed when dropped.
struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        Server::start_with(flags, Stdio::piped())
    }

    fn start_with(flags: &[&str], stdout: impl Into<Stdio>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free().unwrap()));
        let mut command = program();
        command.arg(address.port().to_string()).args(["--bind", "127.0.0.1"]).args(flags);
        command.stdout(stdout).stderr(Stdio::piped());
        let mut process = Process::spawn_logged(command, None, AtDrop::Kill).unwrap();
        let mut line = String::new();
        BufReader::new(process.take_error().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening on {address}\n"));
        Server { process, address }
    }

    /// Sends SIGTERM and waits for the exit, which must be a success.
    fn terminate(&mut self) {
        self.process.signal(Signal::TERM).unwrap();
        assert_eq!(self.process.wait(BOUND).unwrap().status.code(), Some(0));
    }

    fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        stream
    }

    /// Ends the server and returns its output.
    fn stop(mut self) -> String {
        self.terminate();
        let mut text = String::new();
        self.process.take_output().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

fn finish(stream: TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read(stream, &mut [0]).unwrap(), 0);
}

/// Runs a command and returns its exit code and its text on stderr.
fn failure(command: Command) -> (Option<i32>, String) {
    let output = run(command).unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[cfg(not(feature = "diagnostics"))]
fn fails(arguments: &[&str]) -> String {
    let mut command = program();
    command.args(arguments);
    let (code, text) = failure(command);
    assert_eq!(code, Some(2), "{arguments:?}");
    assert!(text.starts_with("ERROR: ") && text.lines().count() == 1, "{text}");
    text
}

#[test]
fn prints_a_line_per_connection() {
    let server = Server::start(&["--timeout", "1"]);
    let mut stream = server.connect();
    stream.write_all(b"content").unwrap();
    finish(stream);
    // This client sends nothing.
    server.connect().read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(server.stop(), "7\nERROR\n");
}

#[test]
fn a_signal_aborts_transfers_and_ends_the_server() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(b"half").unwrap();
    assert_eq!(server.stop(), "ERROR\n");
    stream.read_to_end(&mut Vec::new()).unwrap_err();
}

/// Passed sockets are a feature of accio-server; this server always listens itself.
#[test]
fn ignores_passed_sockets() {
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = command("sh");
    // No interface has this address, so listening on it fails.
    command.args(["-c", script, env!("CARGO_BIN_EXE_server-s"), "5000", "--bind", "203.0.113.7"]);
    command.stdin(OwnedFd::from(passed));
    let mut server = Process::spawn(command, NO_OWNER, Input::Given).unwrap();
    assert_eq!(server.wait(BOUND).unwrap().status.code(), Some(1));
    let text = server.stderr().text();
    assert!(text.contains("203.0.113.7"), "{text}");
}

// The feature adds a flag.
#[cfg(not(feature = "diagnostics"))]
#[test]
fn errors() {
    let mut all = String::new();
    let cases: &[&[&str]] = &[
        &[],
        &["65536"],
        &["5000", "more"],
        &["5000", "--journal", "-"],
        &["5000", "--metrics", "9090"],
        &["5000", "--drain", "5"],
        &["5000", "--timeout", "0"],
        &["5000", "--without", "mmap"],
    ];
    for arguments in cases {
        all += &format!("$ server-s {}\n{}", arguments.join(" "), fails(arguments));
    }
    snapbox::assert_data_eq!(all, snapbox::file!["snapshots/errors.txt"].raw());
}

// The feature adds a flag.
#[cfg(not(feature = "diagnostics"))]
#[test]
fn help() {
    let stdout = |flag| {
        let mut command = program();
        command.arg(flag);
        let output = run(command).unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        String::from_utf8(output.stdout).unwrap()
    };
    snapbox::assert_data_eq!(stdout("-h"), snapbox::file!["snapshots/help-short.txt"].raw());
    snapbox::assert_data_eq!(stdout("--help"), snapbox::file!["snapshots/help-long.txt"].raw());
}

#[test]
fn accepts_an_unwanted_stdout() {
    // Python and Node.js open it like this for `DEVNULL` or `ignore`.
    for redirection in [">&-", "1<>/dev/null"] {
        let mut command = command("sh");
        let script = format!("exec \"$0\" \"$@\" {redirection}");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_server-s"), "5000"]);
        // An address of another machine: the server gets as far as listening.
        command.args(["--bind", "203.0.113.7"]);
        let (_, stderr) = failure(command);
        assert!(stderr.starts_with("ERROR: cannot listen on 203.0.113.7:5000"), "{stderr}");
    }
}

/// While stdout is not read, the next client waits, and a signal still ends the server.
#[test]
fn an_unread_stdout_delays_clients_but_not_shutdown() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut server = Server::start_with(&[], writer);
    // A separate file description: that of the server must stay blocking.
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let filler = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut filler = File::options().write(true).custom_flags(filler).open(path).unwrap();
    while filler.write(b"x\n").is_ok() {}
    let upload = |address| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.read_exact(&mut [0; 7])?;
        stream.write_all(b"1234567890")?;
        stream.shutdown(Shutdown::Write)?;
        read(stream, &mut [0])
    };
    assert!(upload(server.address).is_err(), "a client was notified before its line was printed");
    assert!(TcpStream::connect(server.address).is_ok(), "the next one waits in the backlog");
    let mut text = String::new();
    while !text.contains("10\n") {
        let mut part = [0; 4096];
        let count = reader.read(&mut part).unwrap();
        text += std::str::from_utf8(&part[..count]).unwrap();
    }
    while filler.write(b"x\n").is_ok() {}
    let _ = upload(server.address);
    let start = Instant::now();
    server.terminate();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
