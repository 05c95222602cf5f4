//! The commands that start the servers.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::tools::{IPERF, NC, NCAT, NGINX, PYTHON, RSYNC, VSFTPD, socat};
use super::{Peer, config, tls};
use crate::roles::Design;
use crate::workspace::Workspace;

impl Peer {
    pub(super) fn server_command(
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
        // One address may hold every connection.
        let one_client = ["--max-per-ip", "1000000"];
        // sendfile is a fast path of the client.
        let servers = |paths: &'static [&'static str]| -> Vec<&'static str> {
            paths.iter().copied().filter(|path| *path != "sendfile").collect()
        };
        Ok(match self {
            Peer::Accio { without } => {
                let mut command = own("accio-server", &servers(without));
                command.arg(dir).args(one_client);
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
                command.args(one_client);
                command
            }
            Peer::Tokio => {
                let mut command = Command::new(workspace.tokio()?);
                command.arg(&number).arg(dir).args(["--bind", "127.0.0.1", "--timeout", "600"]);
                command.args(one_client).stdout(Stdio::null());
                command
            }
            Peer::Before { durable } => {
                let program = workspace.before().context("no --before")?;
                let mut command = served_by(Command::new(program), &[]);
                command.arg(dir).args(durable.then_some("--durable")).args(one_client);
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
}
