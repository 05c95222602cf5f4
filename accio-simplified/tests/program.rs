//! The program as its user meets it: counts, flags, lines, exit codes.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Nothing takes longer, or the test fails.
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

/// A server on a socket that is handed over, killed with the test however that goes.
struct Server {
    child: Child,
    socket: TcpListener,
}

impl Server {
    fn start(flags: &[&str]) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
        let mut command = clean(Command::new("sh"));
        command.args(["-c", script, env!("CARGO_BIN_EXE_server-s"), "5000"]).args(flags);
        command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening on {}\n", socket.local_addr().unwrap()));
        Server { child, socket }
    }

    fn connect(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.socket.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        stream
    }

    /// Sends SIGTERM and waits; what it printed.
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

fn fails(arguments: &[&str]) -> String {
    let mut child = program().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    assert_eq!(wait(&mut child), Some(2), "{arguments:?}");
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with("ERROR: ") && text.lines().count() == 1, "{text}");
    text
}

#[test]
fn counts_go_to_stdout_and_the_journal_to_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let server = Server::start(&["--journal", journal.to_str().unwrap(), "--timeout", "0.3"]);
    let mut stream = server.connect();
    stream.write_all(b"content").unwrap();
    finish(stream);
    // This one falls silent.
    server.connect().read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(server.stop(), "7\nERROR\n");
    let text = std::fs::read_to_string(journal).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["id"], &lines[0]["bytes"]), (&1.into(), &7.into()));
    assert_eq!((&lines[1]["outcome"], &lines[1]["reason"]), (&"error".into(), &"idle".into()));
    assert_eq!(lines.len(), 2);
}

#[test]
fn the_one_in_service_may_finish_while_draining() {
    let server = Server::start(&["--drain", "15"]);
    let mut stream = server.connect();
    stream.write_all(b"half ").unwrap();
    let ending = thread::spawn(move || server.stop());
    thread::sleep(Duration::from_millis(300));
    stream.write_all(b"done").unwrap();
    finish(stream);
    assert_eq!(ending.join().unwrap(), "9\n");
}

#[test]
fn errors() {
    let mut all = String::new();
    let cases: &[&[&str]] = &[
        &[],
        &["65536"],
        &["5000", "more"],
        &["5000", "--journal", "-"],
        &["5000", "--timeout", "0"],
        &["5000", "--without", "mmap"],
    ];
    for arguments in cases {
        all += &format!("$ server-s {}\n{}", arguments.join(" "), fails(arguments));
    }
    snapbox::assert_data_eq!(all, snapbox::file!["snapshots/errors.txt"].raw());
}

// Without the feature, a flag is missing.
#[cfg(feature = "metrics")]
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
fn a_closed_stdout_is_an_error_at_the_start() {
    let mut command = clean(Command::new("sh"));
    command.args(["-c", "exec \"$0\" \"$@\" >&-", env!("CARGO_BIN_EXE_server-s"), "5000"]);
    // An address of another machine: what gets as far as listening fails with another line.
    let output = command.args(["--bind", "203.0.113.7"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "ERROR: cannot print to stdout: bad file descriptor\n");
    assert_eq!(output.status.code(), Some(1));
}
