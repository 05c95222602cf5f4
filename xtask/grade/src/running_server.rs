//! A running server of the subject, and the expectations on it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::expectations::{RESTING, expect_silence};
use super::sockets;
use accio_harness::context::{ERROR, wait_until};
use accio_harness::namespace::Namespace;
use accio_harness::peer::{Dialect, Peer, SOON};
use accio_harness::process::Process;
use accio_harness::subject::Program;
use accio_harness::verdict::{Stop, Verdict, ensure};
use accio_harness::{payload, resource_limits};

/// Time limit for a server to end after a signal.
pub(crate) const ENDING: Duration = Duration::from_secs(5);

/// How much longer than [`SOON`] a busy server may take, on a busy machine.
pub(crate) const BUSY: Duration = Duration::from_secs(12);

/// A running server of the subject.
#[derive(Debug)]
pub(crate) struct RunningServer {
    /// The started process, which leads its group.
    pub(crate) process: Process,
    /// The process that listens, which may be a child.
    pub(crate) listener: Pid,
    /// The address that it is bound to.
    pub(crate) bound: IpAddr,
    /// The address to connect to.
    pub(crate) address: SocketAddr,
    /// Its FILE-DIR, if it has one.
    pub(crate) dir: PathBuf,
    pub(super) dialect: Dialect,
    pub(super) program: Program,
    /// Dropped after the process.
    pub(super) _namespace: Option<Namespace>,
}

/// The expected result of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ExpectedResult<'a> {
    /// Exactly these bytes.
    Content(&'a [u8]),
    /// A broken transfer.
    Error,
}

impl RunningServer {
    /// Opens a raw connection.
    pub(crate) fn connect(&self) -> Verdict<Peer> {
        Peer::connect(self.address)
    }

    /// Opens a raw connection, performs the client's part of the handshake and waits until the
    /// server has accepted the connection.
    pub(crate) fn greeted(&self) -> Verdict<Peer> {
        let mut peer = self.connect()?;
        peer.greet_as_client(self.dialect)?;
        self.accepted(&peer)?;
        Ok(peer)
    }

    /// Returns a fault unless the server soon accepts the connection.
    pub(crate) fn accepted(&self, peer: &Peer) -> Verdict {
        let accepted = self.comes_to(|| self.has_accepted(peer));
        ensure(accepted, "the connection to be accepted", || "it waits in the backlog".into())
    }

    /// Whether the server has accepted the connection.
    pub(crate) fn has_accepted(&self, peer: &Peer) -> bool {
        self.entry(peer).is_some_and(|entry| entry.inode != 0)
    }

    /// Returns a fault unless the server soon has read all bytes that were sent.
    pub(crate) fn has_read_all(&self, peer: &Peer) -> Verdict {
        let read = self.comes_to(|| self.entry(peer).is_none_or(|entry| entry.unread == 0));
        ensure(read, "the server to read all bytes", || {
            let left = self.entry(peer).map_or(0, |entry| entry.unread);
            format!("{left} bytes unread after {SOON:?}")
        })
    }

    /// Waits for some time until the server has read all bytes that were sent. Other expectations
    /// detect it if the server does not.
    pub(crate) fn lets_read(&self, peer: &Peer) {
        wait_until(RESTING, || self.entry(peer).is_none_or(|entry| entry.unread == 0));
    }

    /// Returns a fault if the server sends anything within `time` or while it is busy.
    pub(crate) fn expect_silence(&self, peer: &mut Peer, time: Duration) -> Verdict {
        expect_silence(self.process.pid(), peer, time)
    }

    /// Waits until the server is idle.
    pub(crate) fn settles(&self) {
        resource_limits::settles(self.process.pid(), RESTING);
    }

    /// Whether `holds` becomes true soon, or later if the server is busy until then.
    pub(crate) fn comes_to(&self, holds: impl Fn() -> bool) -> bool {
        wait_until(SOON, &holds) || {
            resource_limits::settles(self.process.pid(), BUSY);
            holds()
        }
    }

    fn entry(&self, peer: &Peer) -> Option<crate::sock_diag::Entry> {
        let (near, far) = (peer.stream().local_addr().ok()?, peer.stream().peer_addr().ok()?);
        sockets::connection(self.listener, far, near)
    }

    /// Performs a transfer over a raw connection, and returns it without waiting for the server's
    /// end.
    pub(crate) fn transfer(&self, content: &[u8]) -> Verdict<Peer> {
        let mut peer = self.greeted()?;
        peer.send(content)?;
        peer.fin()?;
        Ok(peer)
    }

    /// Whether it stores files instead of counting bytes.
    pub(crate) fn keeps_files(&self) -> bool {
        self.program == Program::Server
    }

    /// Returns the path of connection `id`'s file.
    pub(crate) fn path(&self, id: usize) -> PathBuf {
        self.dir.join(format!("{id}.file"))
    }

    /// Returns a fault unless connections 1, 2 and so on had these results. Call it last: it may
    /// stop the server.
    pub(crate) fn expect(&mut self, results: &[ExpectedResult<'_>]) -> Verdict {
        if self.program == Program::Server {
            for (index, result) in results.iter().enumerate() {
                self.expect_file(index + 1, result.content())?;
            }
            return Ok(());
        }
        let lines = self.lines(results.len())?;
        let expected: Vec<String> = results.iter().map(ExpectedResult::line).collect();
        let actual: Vec<String> = lines.iter().map(|line| counted(line)).collect();
        ensure(actual == expected, format!("printed: {expected:?}"), || format!("{lines:?}"))
    }

    /// Returns a fault unless connection `id`'s file soon has exactly this content.
    pub(crate) fn expect_file(&self, id: usize, content: &[u8]) -> Verdict {
        let path = self.path(id);
        self.comes_to(|| holds(&path, content));
        payload::ensure_holds(&path, content)
    }

    /// Returns the first `count` non-empty lines of stdout. If there are fewer, stops the server to
    /// see whether its output was buffered.
    pub(crate) fn lines(&mut self, count: usize) -> Verdict<Vec<String>> {
        let lines = |text: String| -> Vec<String> {
            text.lines()
                .map(|line| line.trim().to_owned())
                .filter(|line| !line.is_empty())
                .collect()
        };
        let stdout = self.process.stdout().clone();
        let all = |stdout: &accio_harness::process::Capture| {
            let text = stdout.text();
            lines(text.clone()).len() >= count && text.ends_with('\n')
        };
        // On a busy machine the server may need some time to print.
        let printed = wait_until(Duration::from_secs(3), || all(&stdout)) || {
            self.settles();
            wait_until(Duration::from_millis(50), || all(&stdout))
        };
        if !printed {
            self.signal(Signal::INT)?;
            let until = Instant::now() + ENDING;
            while !self.process.has_ended()? && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            // Wait until the rest of the pipe has been read.
            stdout.wait(Duration::from_millis(300), |_, closed| closed.then_some(()));
        }
        let mut found = lines(stdout.text());
        found.truncate(count);
        Ok(found)
    }

    /// Sends a signal to the process that listens.
    pub(crate) fn signal(&self, signal: Signal) -> Verdict {
        if sockets::listener(self.process.pid(), self.address.port()).is_some() {
            return Ok(rustix::process::kill_process(self.listener, signal)?);
        }
        Ok(self.process.signal(signal)?)
    }

    /// Returns a fault unless the server ends soon after `signal`, with exit code 0.
    pub(crate) fn ends_on(mut self, signal: Signal, name: &str) -> Verdict {
        self.signal(signal)?;
        let expected = format!("exit code 0 within {ENDING:?} of {name}");
        let until = Instant::now() + ENDING;
        while !self.process.has_ended()? {
            if Instant::now() >= until {
                return Err(Stop::fault(expected, "it is still running"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        let exit = self.process.wait(SOON)?;
        ensure(exit.status.code() == Some(0), expected, || {
            format!("{}, stderr {:?}", exit.describe(), self.process.stderr().text())
        })
    }
}

impl ExpectedResult<'_> {
    fn content(&self) -> &[u8] {
        match self {
            ExpectedResult::Content(content) => content,
            ExpectedResult::Error => ERROR,
        }
    }

    fn line(&self) -> String {
        match self {
            ExpectedResult::Content(content) => content.len().to_string(),
            ExpectedResult::Error => "ERROR".to_owned(),
        }
    }
}

/// Reduces a printed line to its only number, or to `ERROR`, so that only the checks of the format
/// fail because of words around the number.
fn counted(line: &str) -> String {
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    match (numbers.next(), numbers.next()) {
        (Some(number), None) => number.to_owned(),
        (None, _) if line.contains("ERROR") => "ERROR".to_owned(),
        _ => line.to_owned(),
    }
}

/// Whether the file has exactly this content now.
pub(crate) fn holds(path: &Path, content: &[u8]) -> bool {
    let length = fs::metadata(path).map(|metadata| metadata.len());
    length.is_ok_and(|length| length == content.len() as u64)
        && fs::read(path).is_ok_and(|now| now == content)
}
