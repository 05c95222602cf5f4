//! Running instances of our own servers.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use rustix::process::Signal;

use super::payload::{self, ERROR};
use super::peer::{Dialect, Peer, SOON};
use super::process::Process;
use super::verdict::{Verdict, ensure};
use super::wait::wait_until;

/// A running accio-server.
#[derive(Debug)]
pub struct Server {
    /// The process.
    pub process: Process,
    /// The port it listens on.
    pub port: u16,
    /// Its FILE-DIR.
    pub dir: PathBuf,
}

impl Server {
    /// Returns the address to connect to.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Opens a raw connection.
    pub fn connect(&self) -> Verdict<Peer> {
        Peer::connect(self.address())
    }

    /// Opens a raw connection and receives the greeting; from then on it has a number.
    pub fn connect_greeted(&self) -> Verdict<Peer> {
        let mut peer = self.connect()?;
        peer.greet_as_client(Dialect::Accio)?;
        Ok(peer)
    }

    /// Returns the path of connection `id`'s file.
    pub fn path(&self, id: usize) -> PathBuf {
        self.dir.join(format!("{id}.file"))
    }

    /// Returns a fault unless the file of connection `id` appears soon, with exactly this content.
    pub fn expect_file(&self, id: usize, content: &[u8]) -> Verdict {
        let path = self.path(id);
        wait_until(SOON, || path.exists());
        payload::ensure_holds(&path, content)
    }

    /// Returns a fault unless the file of connection `id` appears soon.
    pub fn expect_written(&self, id: usize) -> Verdict {
        let exists = wait_until(SOON, || self.path(id).exists());
        ensure(exists, format!("{id}.file"), || "no such file".into())
    }

    /// Returns a fault unless the file of connection `id` appears soon and contains exactly
    /// `ERROR`.
    pub fn expect_error(&self, id: usize) -> Verdict {
        self.expect_file(id, ERROR)
    }

    /// Returns a fault unless the content of connection `id`'s file soon changes from `before` to
    /// exactly `content`.
    pub fn expect_replaced(&self, id: usize, before: &[u8], content: &[u8]) -> Verdict {
        let path = self.path(id);
        wait_until(SOON, || fs::read(&path).is_ok_and(|now| now != before));
        payload::ensure_holds(&path, content)
    }

    /// Returns a fault unless FILE-DIR contains the files of these connections and no others.
    pub fn expect_only(&self, ids: impl IntoIterator<Item = usize>) -> Verdict {
        let expected: BTreeSet<String> = ids.into_iter().map(|id| format!("{id}.file")).collect();
        let actual = self.listing()?;
        ensure(actual == expected, format!("only {expected:?} in FILE-DIR"), || {
            format!("{actual:?}")
        })
    }

    /// Returns a fault unless FILE-DIR contains the files of these connections, and besides only
    /// hidden files of open uploads.
    pub fn expect_only_or_hidden(&self, ids: impl IntoIterator<Item = usize>) -> Verdict {
        let expected: BTreeSet<String> = ids.into_iter().map(|id| format!("{id}.file")).collect();
        let mut actual = self.listing()?;
        actual.retain(|name| !name.starts_with('.'));
        ensure(
            actual == expected,
            format!("only {expected:?} and hidden files in FILE-DIR"),
            || format!("{actual:?}"),
        )
    }

    /// Returns the names in FILE-DIR.
    pub fn listing(&self) -> io::Result<BTreeSet<String>> {
        fs::read_dir(&self.dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// Stops the server; returns a fault unless it is still running and exits with code 0.
    pub fn stop(mut self) -> Verdict {
        stop(&mut self.process)
    }
}

/// A running server-s.
#[derive(Debug)]
pub struct ServerS {
    /// The process.
    pub process: Process,
    /// The port it listens on.
    pub port: u16,
}

impl ServerS {
    /// Returns the address to connect to.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Opens a raw connection.
    pub fn connect(&self) -> Verdict<Peer> {
        Peer::connect(self.address())
    }

    /// Returns a fault unless the server soon prints line `index` (from 0), and it is `text`.
    pub fn expect_line(&self, index: usize, text: &str) -> Verdict {
        let line = self.process.stdout().line(index, SOON);
        ensure(
            line.as_deref() == Some(text),
            format!("line {} on stdout: {text}", index + 1),
            || {
                line.map_or_else(
                    || format!("only {:?} in {SOON:?}", self.process.stdout().text()),
                    |line| format!("{line:?}"),
                )
            },
        )
    }

    /// Stops the server; returns a fault unless it exits with code 0 and printed exactly these
    /// lines.
    pub fn stop_after(mut self, lines: &[&str]) -> Verdict {
        stop(&mut self.process)?;
        let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let actual = self.process.stdout().text();
        ensure(actual == expected, format!("stdout to be {expected:?}"), || format!("{actual:?}"))
    }
}

fn stop(process: &mut Process) -> Verdict {
    let running = !process.has_ended()?;
    ensure(running, format!("{} to be running", process.name()), || "it has ended".into())?;
    process.signal(Signal::TERM)?;
    let exit = process.wait(SOON)?;
    ensure(exit.status.code() == Some(0), "exit code 0 after SIGTERM", || exit.describe())
}
