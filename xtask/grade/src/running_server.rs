//! A running server of the subject, and the expectations on its connections and files.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::connection_end::{OtherSide, look, peek, was_reset};
use super::content;
use super::expectations::{RESTING, expect_silence};
use super::own_time::OwnTime;
use super::patience::{Patience, WatchedFile};
use super::received;
use super::socket_entry::Entry;
use super::sockets;
use super::startup_failures::{HANDSHAKE, StartupFailures};
use accio_harness::context::{ERROR, wait_until};
use accio_harness::namespace::Namespace;
use accio_harness::payload;
use accio_harness::peer::{Dialect, End, FIRST, GREETING, Peer, SECOND, SOON};
use accio_harness::process::Process;
use accio_harness::process_table;
use accio_harness::subject::Program;
use accio_harness::verdict::{Certain, Stop, Verdict, ensure};

/// Time limit for a server to end after a signal.
pub(crate) const ENDING: Duration = Duration::from_secs(5);

/// How much longer than [`SOON`] a busy server may take, on a busy machine.
pub(crate) const BUSY: Duration = Duration::from_secs(12);

/// Describes a server that ended a connection before it had read everything.
pub(crate) const UNREAD: &str = "it closed the connection without having read them";

/// How long to wait for a server to read what it has received, if that cannot be seen.
pub(crate) const UNSEEN: Duration = Duration::from_millis(100);

/// A running server of the subject.
#[derive(Debug)]
pub(crate) struct RunningServer {
    /// The started process, which leads its group.
    pub(crate) process: Process,
    /// The process that listens, which may be a child.
    pub(crate) listener: Pid,
    /// The address that it is bound to, if this system shows it.
    pub(crate) bound: Option<IpAddr>,
    /// The address to connect to.
    pub(crate) address: SocketAddr,
    /// Its FILE-DIR, if it has one.
    pub(crate) dir: PathBuf,
    pub(super) dialect: Dialect,
    pub(super) program: Program,
    /// Findings of other checks about the program.
    pub(super) known: Arc<StartupFailures>,
    /// Number of handshakes so far.
    pub(super) handshakes: AtomicUsize,
    /// Number of bytes of content that it took over all connections.
    pub(super) taken: Arc<AtomicU64>,
    /// Number of lines that it printed before its first connection.
    pub(super) start_up_lines: OnceLock<usize>,
    /// Whether it may print lines at its start.
    pub(super) may_announce: bool,
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
        self.note_start_up_lines();
        Peer::connect(self.address).inspect_err(|_| {
            // A server that ends closes its sockets shortly before its end can be seen.
            wait_until(Duration::from_millis(200), || self.process.is_over().unwrap_or(true));
        })
    }

    /// Opens a raw connection, performs the client's part of the handshake and waits until the
    /// server has accepted the connection.
    pub(crate) fn greeted(&self) -> Verdict<Peer> {
        let mut peer = self.connect()?;
        self.handshake(&mut peer)?;
        // A greeting comes from a server that has accepted the connection.
        if self.dialect == Dialect::Direct {
            self.accepted(&peer)?;
        }
        Ok(peer)
    }

    /// Performs the client's part of the handshake. It waits until the server has read the
    /// confirmations, so that the content never arrives together with them.
    pub(crate) fn handshake(&self, peer: &mut Peer) -> Verdict {
        if self.handshakes.fetch_add(1, Ordering::Relaxed) > 0 {
            return self.try_handshake(peer, || Ok(()));
        }
        // A server whose first handshake fails in some checks fails it in all.
        let known = || self.known.check_step(self.program, HANDSHAKE);
        known()?;
        let done = self.try_handshake(peer, known);
        self.known.record_step(self.program, HANDSHAKE, done)
    }

    fn try_handshake(&self, peer: &mut Peer, known: impl Fn() -> Verdict) -> Verdict {
        if self.dialect == Dialect::Direct {
            return Ok(());
        }
        let hint = "; a server of the dialect direct sends none (--handshake direct)";
        self.expect_greeting(peer, hint, &known)?;
        if self.dialect == Dialect::Confirm {
            peer.send(FIRST)?;
            let hint = "; a server of the dialect accio greets once (--handshake accio)";
            self.expect_greeting(peer, hint, &known)?;
            peer.send(SECOND)?;
            self.lets_read(peer);
        }
        Ok(())
    }

    /// Returns a fault unless the server soon sends the greeting. The hint is for a server that
    /// waits instead.
    fn expect_greeting(&self, peer: &mut Peer, hint: &str, known: impl Fn() -> Verdict) -> Verdict {
        const STEP: Duration = Duration::from_millis(200);
        let mut patience = self.patience(SOON);
        let mut received = Vec::new();
        loop {
            let (more, end) = peer.receive_or_end(GREETING.len() - received.len(), STEP)?;
            received.extend(more);
            if received == GREETING {
                return Ok(());
            }
            let expected = || format!("the greeting, {}", payload::describe(GREETING));
            let wrong = !GREETING.starts_with(&received);
            if wrong || end != End::Open {
                let after = match end {
                    End::Fin => ", then the server closed the connection",
                    End::Reset => ", then the server reset the connection",
                    End::Open => "",
                };
                let actual = format!("{}{after}", payload::describe(&received));
                return Err(Stop::fault(expected(), actual)).certain();
            }
            if patience.has_ended() {
                let hint = if received.is_empty() { hint } else { "" };
                let actual = format!("{} within {SOON:?}{hint}", payload::describe(&received));
                return Err(Stop::fault(expected(), actual));
            }
            known()?;
        }
    }

    /// Starts to wait for it.
    pub(crate) fn patience(&self, limit: Duration) -> Patience {
        Patience::new(self.process.pid(), &self.taken, limit)
    }

    /// Records that it took more bytes.
    pub(crate) fn add_taken(&self, count: usize) {
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Returns a fault unless the server soon accepts the connection, as far as can be seen. Its
    /// greeting must not have been read yet.
    pub(crate) fn accepted(&self, peer: &Peer) -> Verdict {
        if !sockets::are_visible() && self.dialect == Dialect::Direct {
            thread::sleep(UNSEEN);
            return Ok(());
        }
        // The kernel reports a reset once; afterwards the connection looks as if it had been closed.
        let reset = Cell::new(false);
        let shows_accept = || match peek(peer) {
            // It may have been greeted and closed since.
            Ok(1..) => true,
            Ok(0) => !reset.get(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                reset.set(true);
                false
            }
        };
        let accepted = self.comes_to(|| shows_accept() || self.is_open_at_server(peer));
        ensure(accepted, "the connection to be accepted", || match self.entry(peer) {
            Some(_) => "it waits in the backlog".into(),
            None if sockets::are_visible() || reset.get() => "it was reset".into(),
            None => format!("no greeting within {SOON:?}"),
        })
    }

    /// Returns whether the server has accepted the connection and not closed it since.
    pub(crate) fn is_open_at_server(&self, peer: &Peer) -> bool {
        self.entry(peer).is_some_and(|entry| entry.inode != 0)
    }

    /// Returns a fault unless the server soon has read all bytes that were sent. A connection that
    /// the server closed counts as read only if it was not reset: that is what the kernel does if
    /// bytes were left.
    pub(crate) fn has_read_all(&self, peer: &Peer) -> Verdict {
        let all = "the server to read all bytes";
        if !sockets::are_visible() {
            self.lets_read(peer);
        }
        let read = self.comes_to(|| self.entry(peer).is_none() || self.has_read(peer));
        ensure(read, all, || {
            let left = self.entry(peer).map_or(0, |entry| entry.unread);
            format!("{left} bytes unread after {SOON:?}")
        })?;
        let lost = self.entry(peer).is_none() && was_reset(peer);
        ensure(!lost, all, || UNREAD.into()).certain()
    }

    /// Returns whether the server has received and read all bytes that `peer` has sent.
    fn has_read(&self, peer: &Peer) -> bool {
        sockets::pair(peer).0.is_none_or(|own| own.unacknowledged == 0)
            && self.entry(peer).is_none_or(|entry| entry.unread == 0)
    }

    /// Waits for some time until the server has read all bytes that were sent. Other expectations
    /// detect it if the server does not.
    pub(crate) fn lets_read(&self, peer: &Peer) {
        if !sockets::are_visible() {
            thread::sleep(UNSEEN);
            self.settles();
        }
        wait_until(RESTING, || self.has_read(peer));
    }

    /// Returns a fault if the server sends anything within `time` or while it is busy.
    pub(crate) fn expect_silence(&self, peer: &mut Peer, time: Duration) -> Verdict {
        expect_silence(self.process.pid(), peer, time)
    }

    /// Waits until the server is idle.
    pub(crate) fn settles(&self) {
        process_table::settles(self.process.pid(), RESTING);
    }

    /// Returns whether `holds` becomes true soon, or later if the server is delayed or busy until
    /// then.
    pub(crate) fn comes_to(&self, holds: impl Fn() -> bool) -> bool {
        let time = OwnTime::of(&[self.process.pid()]);
        loop {
            if holds() {
                return true;
            }
            if self.process.is_over().unwrap_or(true) {
                // Its last bytes may still be on their way.
                return wait_until(Duration::from_millis(200), &holds);
            }
            if time.exceeds(SOON) {
                process_table::settles(self.process.pid(), BUSY);
                return holds();
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Returns whether the server has closed its side of the connection, or reset it.
    pub(crate) fn has_closed(&self, peer: &Peer) -> bool {
        look(peer) != OtherSide::Open
    }

    /// Waits for some time until the server ends the connection; returns whether and how it has.
    pub(crate) fn end_of(&self, peer: &Peer) -> OtherSide {
        let seen = Cell::new(OtherSide::Open);
        self.comes_to(|| {
            seen.set(look(peer));
            seen.get() != OtherSide::Open
        });
        seen.get()
    }

    fn entry(&self, peer: &Peer) -> Option<Entry> {
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

    /// Returns whether it stores files instead of counting bytes.
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
        if self.program != Program::Server {
            return self.expect_printed(results);
        }
        for (index, result) in results.iter().enumerate() {
            self.expect_file(index + 1, result.content())?;
        }
        Ok(())
    }

    /// Returns a fault unless connection `id`'s file soon has exactly this content.
    pub(crate) fn expect_file(&self, id: usize, content: &[u8]) -> Verdict {
        let path = self.path(id);
        let watched = WatchedFile::default();
        self.comes_to(|| {
            received::holds(&path, content)
                || watched.stays_wrong(self.process.pid(), &path, content)
        });
        let expected = || format!("{id}.file to contain {}", content::sent(content));
        match received::read(&path, content.len()) {
            Ok(actual) if actual == content => Ok(()),
            Ok(actual) => {
                let fault = Stop::fault(expected(), content::received(content, &actual));
                // A part of the content may become the whole.
                let wrong = !content.starts_with(&actual);
                if wrong { Err(fault).certain() } else { Err(fault) }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Stop::fault(expected(), self.describe_missing(id)))
            }
            Err(error) => Err(Stop::system_error(expected(), &error)),
        }
    }

    /// Returns the names of the files in its FILE-DIR.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        // The server may have replaced it by a link.
        let is_dir = fs::symlink_metadata(&self.dir).is_ok_and(|file| file.is_dir());
        let entries = is_dir.then(|| fs::read_dir(&self.dir)).into_iter().flatten().flatten();
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Describes that connection `id`'s file does not exist, and what there is instead.
    pub(crate) fn describe_missing(&self, id: usize) -> String {
        const MOST: usize = 5;
        let names = self.names();
        let mut shown: Vec<&str> = names.iter().map(String::as_str).take(MOST).collect();
        if names.len() > MOST {
            shown.push("…");
        }
        let dir = match shown[..] {
            [] => "FILE-DIR is empty".to_owned(),
            _ => format!("FILE-DIR contains {}", shown.join(", ")),
        };
        format!("{id}.file does not exist {} s after the transfer; {dir}", SOON.as_secs())
    }

    /// Sends a signal to the process that listens.
    pub(crate) fn signal(&self, signal: Signal) -> Verdict {
        let is_leader = self.listener == self.process.pid();
        if !is_leader && sockets::listener(self.process.pid(), self.address.port()).is_some() {
            return Ok(rustix::process::kill_process(self.listener, signal)?);
        }
        Ok(self.process.signal(signal)?)
    }

    /// Returns a fault unless the server ends soon after `signal`, with exit code 0.
    pub(crate) fn ends_on(mut self, signal: Signal, name: &str) -> Verdict {
        let expected = format!("exit code 0 within {ENDING:?} of {name}");
        let time = OwnTime::of(&[self.process.pid()]);
        self.signal(signal)?;
        while !self.process.has_ended()? {
            if time.exceeds(ENDING) {
                return Err(Stop::fault(expected, "it is still running"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        let exit = self.process.wait(SOON)?;
        ensure(exit.status.code() == Some(0), expected, || {
            format!("{}, stderr {:?}", exit.describe(), self.process.stderr().text())
        })
        .certain()
    }
}

impl ExpectedResult<'_> {
    fn content(&self) -> &[u8] {
        match self {
            ExpectedResult::Content(content) => content,
            ExpectedResult::Error => ERROR,
        }
    }
}
