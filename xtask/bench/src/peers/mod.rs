//! The servers and clients to compare.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::ports;
use super::roles::{Alternative, Design, Protocol};
use super::workspace::Workspace;
use accio_harness::process::{self, AtDrop, Process};

mod config;
mod tls;
mod tools;

pub(super) use tls::{Identity, create_identity};
use tools::{CURL, DD, IPERF, NC, NCAT, NGINX, PYTHON, RSYNC, SOCAT, VSFTPD};
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
    /// With a buffer size in bytes.
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

    /// Whether the server ends after one connection.
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

    fn server_command(
        &self,
        workspace: &Workspace,
        dir: &Path,
        scratch: &Path,
        port: u16,
    ) -> Result<Command> {
        let number = port.to_string();
        let file = dir.join("file");
        let into_file = || std::fs::File::create(&file);
        let served_by = |mut command: Command, without: &[&str]| {
            command.args(["--bind", "127.0.0.1", "--timeout", "600", &number]);
            command.args(without.iter().flat_map(|path| ["--without", path]));
            command.stdout(Stdio::null());
            command
        };
        let own = |name: &str, without: &[&str]| served_by(workspace.program(name), without);
        // sendfile is a fast path of the client.
        let servers = |paths: &'static [&'static str]| -> Vec<&'static str> {
            paths.iter().copied().filter(|path| *path != "sendfile").collect()
        };
        Ok(match self {
            Peer::Accio { without } => {
                let mut command = own("accio-server", &servers(without));
                command.arg(dir);
                command
            }
            Peer::Durable => {
                let mut command = own("accio-server", &[]);
                command.arg(dir).arg("--durable");
                command
            }
            Peer::Digest { algorithm, .. } => {
                let mut command = own("accio-server", &[]);
                command.arg(dir).args(["--digest", algorithm]);
                command
            }
            Peer::Tls => {
                let pem = &workspace.identity()?.pem;
                let mut command = own("accio-server", &[]);
                command.arg(dir).arg("--tls-cert").arg(pem).arg("--tls-key").arg(pem);
                command
            }
            Peer::Before { durable } => {
                let program = workspace.before().context("no --before")?;
                let mut command = served_by(Command::new(program), &[]);
                command.arg(dir).args(durable.then_some("--durable"));
                command
            }
            Peer::Count { without } => own("server-s", &servers(without)),
            Peer::Nginx { workers } | Peer::NginxTls { workers } => {
                let tls = match self {
                    Peer::NginxTls { .. } => Some(tls::nginx(workspace.identity()?)),
                    _ => None,
                };
                let config = config::nginx(scratch, dir, port, *workers, tls.as_deref())?;
                let mut command = NGINX.command()?;
                command.arg("-p").arg(scratch).arg("-c").arg(config).args(["-e", "stderr"]);
                command
            }
            Peer::Nc => {
                let mut command = NC.command()?;
                command.args(["-N", "-l", "127.0.0.1", &number]).stdout(into_file()?);
                command
            }
            Peer::Ncat => {
                let mut command = NCAT.command()?;
                command.args(["--recv-only", "-l", "127.0.0.1", &number]).stdout(into_file()?);
                command
            }
            Peer::Socat(buffer) => {
                let mut command = socat(*buffer)?;
                command.arg(format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"));
                command.arg(format!("OPEN:{},creat,trunc", file.display()));
                command
            }
            Peer::Rsync => {
                let mut command = RSYNC.command()?;
                command.args(["--daemon", "--no-detach", "--address=127.0.0.1"]);
                command.arg(format!("--port={port}"));
                command.arg(format!("--config={}", config::rsync(scratch, dir)?.display()));
                command
            }
            Peer::Vsftpd => {
                let mut command = VSFTPD.command()?;
                command.arg(config::vsftpd(scratch, dir, port)?);
                command
            }
            Peer::Python(size) => {
                let mut command = PYTHON.command()?;
                command.arg(config::python(scratch, "server.py")?);
                command.arg(&number).arg(dir).arg(size.to_string());
                command
            }
            Peer::Loop | Peer::Copy => {
                let name = if *self == Peer::Loop { "serve-loop" } else { "serve-copy" };
                let mut command = workspace.role(name);
                command.arg(&number).arg(dir);
                command
            }
            Peer::DurableLoop => {
                let mut command = workspace.role("serve-durable");
                command.arg(&number).arg(dir);
                command
            }
            Peer::Alternative(alternative) => {
                let mut command = workspace.role("serve-alternative");
                command.arg(&number).arg(dir).arg(alternative.name());
                command
            }
            Peer::Limit => {
                let mut command = workspace.role("drain");
                command.args([&number, "accio"]);
                command
            }
            Peer::LowerBound { design, threads } => {
                let mut command = workspace.role("lower-bound");
                let design = if *design == Design::Threads { "threads" } else { "epoll" };
                command.args([&number, &threads.to_string(), design]);
                command
            }
            Peer::Iperf => {
                let mut command = IPERF.command()?;
                command.args(["-s", "-1", "-B", "127.0.0.1", "-p", &number]).stdout(Stdio::null());
                command
            }
        })
    }

    /// Returns the command that uploads `source` as connection `number`.
    pub(super) fn client_command(
        &self,
        workspace: &Workspace,
        port: u16,
        source: &Path,
        number: u64,
    ) -> Result<Command> {
        let name = port.to_string();
        let from_file = || std::fs::File::open(source);
        let mut command = match self {
            Peer::Accio { .. }
            | Peer::Durable
            | Peer::Digest { .. }
            | Peer::Before { .. }
            | Peer::Count { .. }
            | Peer::Alternative(_) => {
                let mut command = workspace.program("accio-client");
                command.args(["127.0.0.1", &name]).arg(source);
                if self.lacks("sendfile") {
                    command.args(["--without", "sendfile"]);
                }
                if let Peer::Digest { algorithm, both: true } = self {
                    command.args(["--digest", algorithm]);
                }
                command
            }
            Peer::Tls => {
                let mut command = workspace.program("accio-client");
                command.args(["127.0.0.1", &name]).arg(source);
                command.args(["--tls-pin", &workspace.identity()?.pin]);
                command
            }
            Peer::NginxTls { .. } => {
                let mut command = curl(source, &format!("https://127.0.0.1:{port}/{number}.file"))?;
                tls::curl(&mut command, workspace.identity()?);
                command
            }
            Peer::Nginx { .. } => curl(source, &format!("http://127.0.0.1:{port}/{number}.file"))?,
            Peer::Vsftpd => curl(source, &format!("ftp://127.0.0.1:{port}/{number}.file"))?,
            Peer::Nc => {
                let mut command = NC.command()?;
                command.args(["-N", "127.0.0.1", &name]).stdin(from_file()?);
                return Ok(command);
            }
            Peer::Ncat => {
                let mut command = NCAT.command()?;
                command.args(["--send-only", "127.0.0.1", &name]).stdin(from_file()?);
                return Ok(command);
            }
            Peer::Socat(buffer) => {
                let mut command = socat(*buffer)?;
                command.arg(format!("FILE:{}", source.display()));
                command.arg(format!("TCP:127.0.0.1:{port}"));
                command
            }
            Peer::Rsync => {
                let mut command = RSYNC.command()?;
                command.args(["--whole-file", "--inplace"]).arg(source);
                command.arg(format!("rsync://127.0.0.1:{port}/store/{number}.file"));
                command
            }
            Peer::Python(size) => {
                let scratch = source.with_extension("conf");
                std::fs::create_dir_all(&scratch)?;
                let mut command = PYTHON.command()?;
                command.arg(config::python(&scratch, "client.py")?);
                command.args(["127.0.0.1", &name]).arg(source).arg(size.to_string());
                command
            }
            Peer::Loop => own_client(workspace, "send-loop", &name, source),
            Peer::Copy => own_client(workspace, "send-copy", &name, source),
            Peer::Limit | Peer::LowerBound { .. } | Peer::DurableLoop => {
                own_client(workspace, "send-file", &name, source)
            }
            Peer::Iperf => {
                let mut command = IPERF.command()?;
                // Send for one second. With a number of bytes and --skip-rx-copy, iperf3 rounds the
                // time up to a second.
                command.args(["-c", "127.0.0.1", "-p", &name, "-t", "1", "-Z", "-J"]);
                if iperf_skips_the_copy() {
                    command.arg("--skip-rx-copy");
                }
                command.stdout(Stdio::piped());
                command
            }
        };
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// Returns a `dd` command that copies a file without the page cache and then syncs it.
pub(super) fn dd(source: &Path, copy: &Path) -> Result<Command> {
    let mut command = DD.command()?;
    let operand = |name: &str, path: &Path| format!("{name}={}", path.display());
    command.args([operand("if", source), operand("of", copy)]);
    command.args(["bs=1M", "oflag=direct", "conv=fsync", "status=none"]).stdin(Stdio::null());
    Ok(command)
}

/// Returns a `curl -T` that sends the body without waiting for `100 Continue`.
pub(super) fn curl(source: &Path, url: &str) -> Result<Command> {
    let mut command = CURL.command()?;
    command.args(["-sS", "--fail", "--noproxy", "*", "-H", "Expect:", "-T"]).arg(source).arg(url);
    Ok(command)
}

/// Whether the installed iperf3 has `--skip-rx-copy`.
pub(super) fn iperf_skips_the_copy() -> bool {
    let help = IPERF.command().and_then(|mut command| {
        command.arg("--help");
        Ok(process::output(command, b"", Duration::from_secs(10))?)
    });
    help.is_ok_and(|help| {
        [help.stdout, help.stderr].concat().windows(14).any(|text| text == b"--skip-rx-copy")
    })
}

fn socat(buffer: Option<usize>) -> Result<Command> {
    let mut command = SOCAT.command()?;
    command.arg("-u");
    if let Some(buffer) = buffer {
        command.args(["-b", &buffer.to_string()]);
    }
    Ok(command)
}

fn own_client(workspace: &Workspace, role: &str, port: &str, source: &Path) -> Command {
    let mut command = workspace.role(role);
    command.arg(port).arg(source);
    command
}
