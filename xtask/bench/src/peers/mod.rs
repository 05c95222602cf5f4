//! The servers and clients that are compared.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use super::ports;
use super::roles::{Design, Idea, Speech};
use super::workspace::Workspace;
use accio_harness::process::{self, AtDrop, Process};

mod config;
mod tools;

use tools::{CURL, IPERF, NC, NCAT, NGINX, PYTHON, RSYNC, SOCAT, VSFTPD};
pub(super) use tools::{TOOLS, Tool, strace};

/// A server and the client that uploads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// Ours, with some fast paths switched off.
    Accio {
        without: &'static [&'static str],
    },
    /// server-s, which counts.
    Count {
        without: &'static [&'static str],
    },
    Nginx {
        workers: usize,
    },
    Nc,
    Ncat,
    /// With its buffer's size.
    Socat(Option<usize>),
    Rsync,
    Vsftpd,
    /// A plain threaded server, and client, that read this much at a time.
    Python(usize),
    Loop,
    Copy,
    /// Our client, into a bare loop.
    Idea(Idea),
    /// Uncopied at both ends, nothing stored.
    Limit,
    /// Its own figure is taken: it spends long on setting up.
    Iperf,
    /// Reads small uploads and forgets them.
    Floor {
        design: Design,
        threads: usize,
    },
}

/// A server at work.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) running: Process,
    pub(super) port: u16,
    /// Connections it was sent so far, the coming one included.
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
            Peer::Count { without } => all_but("server-s", without),
            Peer::Nginx { workers: 1 } => "nginx".into(),
            Peer::Nginx { workers } => format!("nginx {workers} workers"),
            Peer::Nc => "nc".into(),
            Peer::Ncat => "ncat".into(),
            Peer::Socat(None) => "socat".into(),
            Peer::Socat(Some(_)) => "socat 1 MiB".into(),
            Peer::Rsync => "rsync".into(),
            Peer::Vsftpd => "vsftpd".into(),
            Peer::Python(size) => format!("python {} KiB", size >> 10),
            Peer::Loop => "read/write".into(),
            Peer::Copy => "io::copy".into(),
            Peer::Idea(Idea::Splice) => "splice alone".into(),
            Peer::Idea(Idea::SpliceThreads) => "splice, 2 threads".into(),
            Peer::Idea(Idea::BufferThreads) => "buffers, 2 threads".into(),
            Peer::Limit => "limit".into(),
            Peer::Iperf => "iperf3".into(),
            Peer::Floor { design: Design::Threads, threads } => format!("floor, {threads} threads"),
            Peer::Floor { design: Design::Epoll, threads } => format!("floor, {threads} epolls"),
        }
    }

    /// Describes the client and the server in a few words.
    pub(super) fn about(&self) -> &'static str {
        match self {
            Peer::Accio { .. } => "accio-client → accio-server",
            Peer::Count { .. } => "accio-client → server-s, which stores nothing",
            Peer::Nginx { .. } => "curl -T → nginx, WebDAV PUT",
            Peer::Nc => "OpenBSD nc → nc",
            Peer::Ncat => "ncat --send-only → ncat --recv-only",
            Peer::Socat(None) => "socat → socat",
            Peer::Socat(Some(_)) => "socat → socat, -b 1048576",
            Peer::Rsync => "rsync -W --inplace → rsync daemon",
            Peer::Vsftpd => "curl -T → vsftpd, anonymous",
            Peer::Python(_) => "a plain Python client → threaded Python server",
            Peer::Loop => "read and write, 64 KiB, at both ends, a thread each",
            Peer::Copy => "std::io::copy at both ends, a thread each",
            Peer::Idea(Idea::Splice) => "accio-client → splice in, splice out, nothing else",
            Peer::Idea(Idea::SpliceThreads) => "accio-client → the same, by a thread each",
            Peer::Idea(Idea::BufferThreads) => "accio-client → read and write by a thread each",
            Peer::Limit => "sendfile → recv(MSG_TRUNC), stores nothing",
            Peer::Iperf => "iperf3 -Z (--skip-rx-copy where it has it), stores nothing",
            Peer::Floor { .. } => "accept, greet, read to the end, close; stores nothing",
        }
    }

    fn lacks(&self, path: &str) -> bool {
        match self {
            Peer::Accio { without } | Peer::Count { without } => without.contains(&path),
            _ => false,
        }
    }

    /// The programs it takes.
    pub(super) fn tools(&self) -> Vec<&'static Tool> {
        match self {
            Peer::Nginx { .. } => vec![&NGINX, &CURL],
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

    pub(super) fn is_here(&self) -> bool {
        self.tools().iter().all(|tool| tool.find().is_some())
    }

    /// Whether the server serves one connection and ends.
    pub(super) fn serves_once(&self) -> bool {
        matches!(self, Peer::Nc | Peer::Ncat | Peer::Socat(_) | Peer::Iperf)
    }

    pub(super) fn stores(&self) -> bool {
        !matches!(self, Peer::Count { .. } | Peer::Limit | Peer::Iperf | Peer::Floor { .. })
    }

    /// How the load generator is to speak to the server.
    pub(super) fn speech(&self) -> Speech {
        if matches!(self, Peer::Nginx { .. }) { Speech::Http } else { Speech::Accio }
    }

    /// Where connection `number` ends up in `dir`.
    pub(super) fn stored(&self, dir: &Path, number: u64) -> PathBuf {
        match self {
            _ if self.serves_once() => dir.join("file"),
            _ => dir.join(format!("{number}.file")),
        }
    }

    /// Starts the server, to store in `dir`; it listens when this returns.
    pub(super) fn serve(&self, workspace: &Workspace, dir: &Path) -> Result<Server> {
        let port = accio_harness::ports::free()?;
        let scratch = dir.with_extension("conf");
        std::fs::create_dir_all(&scratch)?;
        let mut command = self.server_command(workspace, dir, &scratch, port)?;
        command.stdin(Stdio::null());
        let log = scratch.join("log");
        let mut running = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?;
        ports::await_listener(port, &mut running)?;
        Ok(Server { running, port, connections: 0 })
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
        let own = |name: &str, without: &[&str]| {
            let mut command = workspace.program(name);
            command.args(["--bind", "127.0.0.1", "--timeout", "600", &number]);
            command.args(without.iter().flat_map(|path| ["--without", path]));
            command.stdout(Stdio::null());
            command
        };
        // sendfile is the client's.
        let servers = |paths: &'static [&'static str]| -> Vec<&'static str> {
            paths.iter().copied().filter(|path| *path != "sendfile").collect()
        };
        Ok(match self {
            Peer::Accio { without } => {
                let mut command = own("accio-server", &servers(without));
                command.arg(dir);
                command
            }
            Peer::Count { without } => own("server-s", &servers(without)),
            Peer::Nginx { workers } => {
                let config = config::nginx(scratch, dir, port, *workers)?;
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
            Peer::Idea(idea) => {
                let mut command = workspace.role("serve-idea");
                command.arg(&number).arg(dir).arg(idea.name());
                command
            }
            Peer::Limit => {
                let mut command = workspace.role("drain");
                command.args([&number, "accio"]);
                command
            }
            Peer::Floor { design, threads } => {
                let mut command = workspace.role("floor");
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

    /// The command that uploads `source` as connection `number`.
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
            Peer::Accio { .. } | Peer::Count { .. } | Peer::Idea(_) => {
                let mut command = workspace.program("accio-client");
                command.args(["127.0.0.1", &name]).arg(source);
                if self.lacks("sendfile") {
                    command.args(["--without", "sendfile"]);
                }
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
            Peer::Limit | Peer::Floor { .. } => own_client(workspace, "send-file", &name, source),
            Peer::Iperf => {
                let mut command = IPERF.command()?;
                // For a second, whatever that is in bytes: told to drop what it gets, it rounds the
                // time of a given number of bytes up to one.
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

/// `curl -T`, without the pause for a permission to send a body.
pub(super) fn curl(source: &Path, url: &str) -> Result<Command> {
    let mut command = CURL.command()?;
    command.args(["-sS", "--fail", "--noproxy", "*", "-H", "Expect:", "-T"]).arg(source).arg(url);
    Ok(command)
}

/// Whether this iperf3 can drop what it receives.
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
