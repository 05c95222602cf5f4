//! The servers and clients to compare.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;

use super::ports;
use super::roles::{Alternative, Design, Protocol};
use super::workspace::Workspace;
use accio_harness::process::{AtDrop, Process};

mod clients;
mod config;
mod servers;
mod tls;
mod tools;

pub(super) use clients::{curl, dd, iperf_skips_the_copy};
pub(super) use tls::{Identity, create_identity};
use tools::{CURL, IPERF, NC, NCAT, NGINX, PYTHON, RSYNC, SOCAT, VSFTPD};
pub(super) use tools::{TOOLS, Tool, strace};

/// A server and the client that uploads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// Our client and server, without some fast paths.
    Accio {
        without: &'static [&'static str],
    },
    /// Our client and our server with `--durable`.
    Durable,
    /// Our server with `--digest`, and our client with or without it.
    Digest {
        algorithm: &'static str,
        both: bool,
    },
    /// Our client and our server with TLS.
    Tls,
    /// Our client and the example server of accio-tokio.
    Tokio,
    /// Our client and the accio-server of `--before`.
    Before {
        durable: bool,
    },
    /// Our client and server-s, which counts bytes.
    Count {
        without: &'static [&'static str],
    },
    Nginx {
        workers: usize,
    },
    NginxTls {
        workers: usize,
    },
    Nc,
    Ncat,
    /// socat, with this buffer size in bytes.
    Socat(Option<usize>),
    Rsync,
    Vsftpd,
    /// A plain client and a threaded server, both with this read size in bytes.
    Python(usize),
    /// A loop of read and write on both sides.
    Loop,
    /// `std::io::copy` on both sides.
    Copy,
    /// A minimal server that stores small uploads durably, one after another.
    DurableLoop,
    /// Our client and a minimal server.
    Alternative(Alternative),
    /// Zero-copy on both sides, nothing is stored.
    Limit,
    /// iperf3; its own measurement is used, because its set-up takes long.
    Iperf,
    /// A minimal server that reads small uploads and stores nothing.
    LowerBound {
        design: Design,
        threads: usize,
    },
}

/// A running server.
#[derive(Debug)]
pub(super) struct PeerServer {
    pub(super) process: Process,
    pub(super) port: u16,
    /// Number of connections so far, including the next one.
    pub(super) connections: u64,
}

impl Peer {
    pub(super) fn name(&self) -> String {
        let all_but = |name: &str, without: &[&str]| match without {
            [] => name.to_owned(),
            without => format!("{name} without {}", without.join(", ")),
        };
        match self {
            Peer::Accio { without } => all_but("accio", without),
            Peer::Durable => "accio, durable".into(),
            Peer::Digest { algorithm, both: false } => format!("accio, {algorithm}"),
            Peer::Digest { algorithm, both: true } => format!("accio, {algorithm}, both ends"),
            Peer::Tls => "accio, TLS".into(),
            Peer::Tokio => "on tokio".into(),
            Peer::Before { durable: false } => "before".into(),
            Peer::Before { durable: true } => "before, durable".into(),
            Peer::Count { without } => all_but("server-s", without),
            Peer::Nginx { workers: 1 } => "nginx".into(),
            Peer::Nginx { workers } => format!("nginx {workers} workers"),
            Peer::NginxTls { workers: 1 } => "nginx, TLS".into(),
            Peer::NginxTls { workers } => format!("nginx, TLS, {workers} workers"),
            Peer::Nc => "nc".into(),
            Peer::Ncat => "ncat".into(),
            Peer::Socat(None) => "socat".into(),
            Peer::Socat(Some(_)) => "socat 1 MiB".into(),
            Peer::Rsync => "rsync".into(),
            Peer::Vsftpd => "vsftpd".into(),
            Peer::Python(size) => format!("python {} KiB", size >> 10),
            Peer::Loop => "read/write".into(),
            Peer::Copy => "io::copy".into(),
            Peer::DurableLoop => "bare loop, durable".into(),
            Peer::Alternative(Alternative::Splice) => "splice alone".into(),
            Peer::Alternative(Alternative::SpliceThreads) => "splice, 2 threads".into(),
            Peer::Alternative(Alternative::BufferThreads) => "buffers, 2 threads".into(),
            Peer::Limit => "limit".into(),
            Peer::Iperf => "iperf3".into(),
            Peer::LowerBound { design: Design::Threads, threads } => {
                format!("floor, {threads} threads")
            }
            Peer::LowerBound { design: Design::Epoll, threads } => {
                format!("floor, {threads} epolls")
            }
        }
    }

    /// Describes the client and the server.
    pub(super) fn about(&self) -> &'static str {
        match self {
            Peer::Accio { .. } => "accio-client → accio-server",
            Peer::Durable => "accio-client → accio-server --durable",
            Peer::Digest { both: false, .. } => "accio-client → accio-server --digest",
            Peer::Digest { both: true, .. } => "accio-client --digest → accio-server --digest",
            Peer::Tls => "accio-client --tls-pin → accio-server --tls",
            Peer::Tokio => "accio-client → the example server of accio-tokio",
            Peer::Before { .. } => "accio-client → the accio-server of --before",
            Peer::Count { .. } => "accio-client → server-s, which stores nothing",
            Peer::Nginx { .. } => "curl -T → nginx, WebDAV PUT",
            Peer::NginxTls { .. } => "curl -T → nginx, WebDAV PUT, the same cipher suite and curve",
            Peer::Nc => "OpenBSD nc → nc",
            Peer::Ncat => "ncat --send-only → ncat --recv-only",
            Peer::Socat(None) => "socat → socat",
            Peer::Socat(Some(_)) => "socat → socat, -b 1048576",
            Peer::Rsync => "rsync -W --inplace → rsync daemon",
            Peer::Vsftpd => "curl -T → vsftpd, anonymous",
            Peer::Python(_) => "a plain Python client → threaded Python server",
            Peer::Loop => "read and write, 64 KiB, on both sides, a thread each",
            Peer::Copy => "std::io::copy on both sides, a thread each",
            Peer::DurableLoop => "accept, greet, read, fdatasync, link, fsync, close, one by one",
            Peer::Alternative(Alternative::Splice) => {
                "accio-client → splice in, splice out, nothing else"
            }
            Peer::Alternative(Alternative::SpliceThreads) => {
                "accio-client → splice in and splice out, a thread each"
            }
            Peer::Alternative(Alternative::BufferThreads) => {
                "accio-client → read and write, a thread each"
            }
            Peer::Limit => "sendfile → recv(MSG_TRUNC), stores nothing",
            Peer::Iperf => "iperf3 -Z (with --skip-rx-copy if supported), stores nothing",
            Peer::LowerBound { .. } => "accept, greet, read to the end, close; stores nothing",
        }
    }

    fn lacks(&self, path: &str) -> bool {
        match self {
            Peer::Accio { without } | Peer::Count { without } => without.contains(&path),
            _ => false,
        }
    }

    /// Returns the third-party programs that it needs.
    pub(super) fn tools(&self) -> Vec<&'static Tool> {
        match self {
            Peer::Nginx { .. } | Peer::NginxTls { .. } => vec![&NGINX, &CURL],
            Peer::Nc => vec![&NC],
            Peer::Ncat => vec![&NCAT],
            Peer::Socat(_) => vec![&SOCAT],
            Peer::Rsync => vec![&RSYNC],
            Peer::Vsftpd => vec![&VSFTPD, &CURL],
            Peer::Python(_) => vec![&PYTHON],
            Peer::Iperf => vec![&IPERF],
            _ => Vec::new(),
        }
    }

    pub(super) fn is_installed(&self) -> bool {
        self.tools().iter().all(|tool| tool.find().is_some())
    }

    /// Returns whether the server ends after one connection.
    pub(super) fn serves_once(&self) -> bool {
        matches!(self, Peer::Nc | Peer::Ncat | Peer::Socat(_) | Peer::Iperf)
    }

    pub(super) fn stores(&self) -> bool {
        !matches!(self, Peer::Count { .. } | Peer::Limit | Peer::Iperf | Peer::LowerBound { .. })
    }

    /// Returns the protocol that the load generator must use.
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Peer::Nginx { .. } => Protocol::Http,
            Peer::NginxTls { .. } => Protocol::Https,
            Peer::Tls => Protocol::Accios,
            _ => Protocol::Accio,
        }
    }

    /// Returns the path in `dir` of the file that connection `number` uploaded.
    pub(super) fn stored(&self, dir: &Path, number: u64) -> PathBuf {
        match self {
            _ if self.serves_once() => dir.join("file"),
            _ => dir.join(format!("{number}.file")),
        }
    }

    /// Starts the server with `dir` for the uploads, and waits until it listens.
    pub(super) fn serve(&self, workspace: &Workspace, dir: &Path) -> Result<PeerServer> {
        let port = accio_harness::ports::free()?;
        let scratch = dir.with_extension("conf");
        std::fs::create_dir_all(&scratch)?;
        let mut command = self.server_command(workspace, dir, &scratch, port)?;
        command.stdin(Stdio::null());
        let log = scratch.join("log");
        let mut process = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?;
        ports::await_listener(port, &mut process)?;
        Ok(PeerServer { process, port, connections: 0 })
    }
}
