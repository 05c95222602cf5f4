//! Starts the server, talks to it and always ends it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Maximum duration of any step of a test.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

/// A fresh directory with room for received files and other files.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("log")).unwrap();
        Place { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The directory of received files.
    pub(crate) fn dir(&self) -> String {
        self.text("received")
    }

    pub(crate) fn read(&self, id: u64) -> Option<Vec<u8>> {
        std::fs::read(self.path("received").join(format!("{id}.file"))).ok()
    }

    /// Creates an executable script.
    pub(crate) fn script(&self, name: &str, body: &str) -> String {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = std::fs::OpenOptions::new();
        let path = self.path(name);
        let mut file = options.write(true).create_new(true).mode(0o755).open(&path).unwrap();
        write!(file, "#!/bin/sh\n{body}\n").unwrap();
        self.text(name)
    }
}

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    changed: Condvar,
}

/// A running server, killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    stderr: Arc<Lines>,
    reader: Option<thread::JoinHandle<()>>,
}

/// A free port below the range from which the system assigns client ports.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port =
            20_000 + (std::process::id() as u16).wrapping_mul(37).wrapping_add(next) % 12_000;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// The server program, without the variables of this process that could affect it.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_accio-server"));
    clean(&mut command);
    command
}

pub(crate) fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("ACCIO_")) {
            command.env_remove(name);
        }
    }
    for name in ["RUST_LOG", "NO_COLOR", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).env("COLUMNS", "100");
}

impl Server {
    /// Starts a server on a free port of loopback, with `flags` after PORT and FILE-DIR.
    pub(crate) fn start(place: &Place, flags: &[&str]) -> Self {
        Self::start_as(program(), place, &[&["--bind", "127.0.0.1"], flags].concat())
    }

    pub(crate) fn start_as(mut command: Command, place: &Place, flags: &[&str]) -> Self {
        command.arg(free_port().to_string()).arg(place.dir()).args(flags);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = Arc::new(Lines::default());
        let pipe = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&stderr);
        let reader = thread::spawn(move || {
            for line in pipe.lines().map_while(Result::ok) {
                lines.lines.lock().unwrap().push(line);
                lines.changed.notify_all();
            }
        });
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Server { child, address: unknown, stderr, reader: Some(reader) };
        let line = server.line("listening on ");
        let address = line["listening on ".len()..].split(", ").next().unwrap();
        server.address = address.parse().unwrap();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a line on stderr that contains `text`.
    pub(crate) fn line(&self, text: &str) -> String {
        let find = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
        let lines = self.stderr.lines.lock().unwrap();
        let none = |lines: &mut Vec<String>| find(lines).is_none();
        let (lines, _) = self.stderr.changed.wait_timeout_while(lines, BOUND, none).unwrap();
        find(&lines).unwrap_or_else(|| panic!("no {text:?} in {lines:#?}"))
    }

    /// Returns the number of lines on stderr so far that contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.stderr.lines.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The process state that the kernel reports: `T` for stopped.
    #[cfg(feature = "metrics")]
    pub(crate) fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().chars().next().unwrap()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the server to exit and for the end of its output.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = wait(&mut self.child);
        // A command that the server left behind would keep stderr open.
        let reader = self.reader.take();
        until("its stderr ends", || reader.as_ref().is_none_or(|reader| reader.is_finished()));
        status
    }

    /// Ends the server with SIGTERM within `limit`; returns its exit status and its lines on
    /// stderr.
    pub(crate) fn end(mut self, limit: Duration) -> (ExitStatus, Vec<String>) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(start.elapsed() < limit, "{:?}", start.elapsed());
        let said = std::mem::take(&mut *self.stderr.lines.lock().unwrap());
        (status, said)
    }

    /// Ends the server with SIGTERM and expects exit code 0 within `limit`.
    pub(crate) fn stop(mut self, limit: Duration) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0));
        assert!(start.elapsed() < limit, "{:?}", start.elapsed());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process to exit, within the bound.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let end = Instant::now() + BOUND;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "the server does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Sets the flag when dropped, so that a failing test also ends its worker threads.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Waits until `done` returns true.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !done() {
        assert!(Instant::now() < end, "{what}: not within {BOUND:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Opens a connection and reads the greeting.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.set_write_timeout(Some(BOUND))?;
    let mut greeting = [0; 7];
    stream.read_exact(&mut greeting)?;
    assert_eq!(&greeting, b"accio\r\n");
    Ok(stream)
}

/// Ends the upload; returns an error unless the server confirms it.
pub(crate) fn finish(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(stream.read(&mut [0])?, 0, "nothing after the greeting");
    Ok(())
}

/// Sends a file; returns an error unless the server confirms it.
pub(crate) fn upload(address: SocketAddr, content: &[u8]) -> io::Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(content)?;
    finish(stream)
}

/// Parses the lines of a file as JSON.
pub(crate) fn json_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "a line is split: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
