//! The program from a user's point of view: output, flags, errors, exit codes.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum duration of any step of a test.
const BOUND: Duration = Duration::from_secs(20);

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("ACCIO_")) {
            command.env_remove(name);
        }
    }
    for name in ["RUST_LOG", "NO_COLOR", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).env("COLUMNS", "100");
    command
}

fn program() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_server-s")))
}

/// A running server, killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        Server::start_with(flags, Stdio::piped)
    }

    fn start_with(flags: &[&str], stdout: impl Fn() -> Stdio) -> Self {
        // Another process may take the port before the server does.
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let mut command = program();
            command.arg(address.port().to_string()).args(["--bind", "127.0.0.1"]).args(flags);
            command.stdout(stdout()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
            let server = Server { child, address };
            if line == format!("listening on {address}\n") {
                return server;
            }
            assert!(line.contains("address already in use"), "{line}");
        }
        panic!("no port stays free");
    }

    fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        stream
    }

    /// Sends SIGTERM, waits for the exit and returns the output.
    fn stop(mut self) -> String {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        assert_eq!(wait(&mut self.child), Some(0));
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child) -> Option<i32> {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < end, "the server does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

fn finish(mut stream: TcpStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[cfg(not(feature = "diagnostics"))]
fn fails(arguments: &[&str]) -> String {
    let mut child = program().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(wait(&mut child), Some(2), "{arguments:?}");
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with("ERROR: ") && text.lines().count() == 1, "{text}");
    text
}

#[test]
fn prints_a_line_per_connection() {
    let server = Server::start(&["--timeout", "0.3"]);
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
    let mut command = clean(Command::new("sh"));
    // No interface has this address, so listening on it fails.
    command.args(["-c", script, env!("CARGO_BIN_EXE_server-s"), "5000", "--bind", "203.0.113.7"]);
    command.stdin(Stdio::from(OwnedFd::from(passed))).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    assert_eq!(wait(&mut child), Some(1));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
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
        let output = program().arg(flag).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        String::from_utf8(output.stdout).unwrap()
    };
    snapbox::assert_data_eq!(stdout("-h"), snapbox::file!["snapshots/help-short.txt"].raw());
    snapbox::assert_data_eq!(stdout("--help"), snapbox::file!["snapshots/help-long.txt"].raw());
}

#[test]
fn rejects_a_closed_stdout_at_startup() {
    let mut command = clean(Command::new("sh"));
    command.args(["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_server-s"), "5000"]);
    // An address of another machine: a server that got as far as listening would fail with another
    // line.
    let output = command.args(["--bind", "203.0.113.7"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "ERROR: cannot print to stdout: bad file descriptor\n");
    assert_eq!(output.status.code(), Some(1));
}

/// While stdout is not read, the next client waits, and a signal still ends the server.
#[test]
fn an_unread_stdout_delays_clients_but_not_shutdown() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut server =
        Server::start_with(&[], || Stdio::from(OwnedFd::from(writer.try_clone().unwrap())));
    // A separate file description: that of the server must stay blocking.
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let filler = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut filler = File::options().write(true).custom_flags(filler).open(path).unwrap();
    while filler.write(b"x\n").is_ok() {}
    let upload = |address| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.read_exact(&mut [0; 7])?;
        stream.write_all(b"1234567890")?;
        stream.shutdown(Shutdown::Write)?;
        stream.read(&mut [0])
    };
    assert!(upload(server.address).is_err(), "a client was told before its line was printed");
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
    let kill = Command::new("kill").arg(server.child.id().to_string()).status().unwrap();
    assert!(kill.success());
    assert_eq!(wait(&mut server.child), Some(0));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
