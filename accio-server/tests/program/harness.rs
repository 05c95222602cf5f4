//! Starts the server, talks to it and always ends it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use accio_harness::peer::read;
use accio_harness::process::{Input, NO_OWNER, Process};
pub(crate) use accio_harness::program::{BOUND, command, run};
use accio_harness::wait::wait_until;
use rustix::process::Signal;

/// How long other processes of a busy machine may delay a server. Servers that wait for something
/// they should not wait for take much longer; `cargo xtask torture stop` measures precisely.
pub(crate) const BUSY: Duration = Duration::from_secs(5);

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

    /// Returns the directory of received files.
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

/// A running server, killed when dropped.
pub(crate) struct Server {
    process: Process,
    address: SocketAddr,
}

/// Returns a free port below the range from which the system assigns client ports.
pub(crate) fn free_port() -> u16 {
    accio_harness::ports::free().unwrap()
}

/// Returns the server program, without the variables of this process that could affect it.
pub(crate) fn program() -> Command {
    command(env!("CARGO_BIN_EXE_accio-server"))
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

    pub(crate) fn spawn(command: Command) -> Self {
        let process = Process::spawn(command, NO_OWNER, Input::Given).unwrap();
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Server { process, address: unknown };
        let line = server.line("listening on ");
        let address = line["listening on ".len()..].split(", ").next().unwrap();
        server.address = address.parse().unwrap();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid().as_raw_nonzero().get()
    }

    /// Waits for a line on stderr that contains `text`.
    pub(crate) fn line(&self, text: &str) -> String {
        let stderr = self.process.stderr();
        let line = stderr.wait(BOUND, |bytes, _| {
            let all = String::from_utf8_lossy(bytes);
            let mut lines = all.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            lines.find(|line| line.contains(text)).map(str::to_owned)
        });
        line.unwrap_or_else(|| panic!("no {text:?} in {:?}", stderr.text()))
    }

    /// Returns the number of lines on stderr so far that contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.process.stderr().text().lines().filter(|line| line.contains(text)).count()
    }

    /// Returns the text on stdout so far.
    pub(crate) fn stdout(&self) -> String {
        self.process.stdout().text()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    /// Suspends the server and waits until all its threads have stopped.
    #[cfg(feature = "metrics")]
    pub(crate) fn pause(&self) {
        self.process.pause().unwrap();
    }

    /// Waits for the server to exit and for the end of its output.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.process.wait(BOUND).unwrap().status;
        // A command that the server left behind would keep stderr open.
        let closed = self.process.stderr().wait(BOUND, |_, closed| closed.then_some(()));
        closed.expect("its stderr ends");
        status
    }

    /// Ends the server with SIGTERM within `limit`, or [`BUSY`] later; returns its exit status and its lines on
    /// stderr.
    pub(crate) fn end(&mut self, limit: Duration) -> (ExitStatus, Vec<String>) {
        let start = Instant::now();
        self.signal(Signal::TERM);
        let status = self.wait();
        assert!(start.elapsed() < limit + BUSY, "{:?}", start.elapsed());
        (status, self.process.stderr().text().lines().map(str::to_owned).collect())
    }

    /// Ends the server with SIGTERM and expects exit code 0 within `limit`.
    pub(crate) fn stop(mut self, limit: Duration) {
        assert_eq!(self.end(limit).0.code(), Some(0));
    }
}

/// A process that is stopped until this is dropped, even by a failed test.
#[cfg(linux_sys)]
pub(crate) struct Stopped(rustix::process::Pid);

#[cfg(linux_sys)]
impl Stopped {
    pub(crate) fn new(process: rustix::process::Pid) -> Self {
        rustix::process::kill_process(process, Signal::STOP).unwrap();
        Stopped(process)
    }
}

#[cfg(linux_sys)]
impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended.
        let _ = rustix::process::kill_process(self.0, Signal::CONT);
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
pub(crate) fn until(what: &str, done: impl FnMut() -> bool) {
    assert!(wait_until(BOUND, done), "{what}: not within {BOUND:?}");
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
pub(crate) fn finish(stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    assert_eq!(read(stream, &mut [0])?, 0, "nothing after the greeting");
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
