//! The commands that upload.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use accio_harness::process;
use anyhow::Result;

use super::tools::{CURL, DD, IPERF, NC, NCAT, PYTHON, RSYNC, socat};
use super::{Peer, config, tls};
use crate::workspace::Workspace;

impl Peer {
    /// Returns the command that uploads `source` as connection `number`.
    pub(crate) fn client_command(
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
            | Peer::Tokio
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
pub(crate) fn dd(source: &Path, copy: &Path) -> Result<Command> {
    let mut command = DD.command()?;
    let operand = |name: &str, path: &Path| format!("{name}={}", path.display());
    command.args([operand("if", source), operand("of", copy)]);
    command.args(["bs=1M", "oflag=direct", "conv=fsync", "status=none"]).stdin(Stdio::null());
    Ok(command)
}

/// Returns a `curl -T` that sends the body without waiting for `100 Continue`.
pub(crate) fn curl(source: &Path, url: &str) -> Result<Command> {
    let mut command = CURL.command()?;
    command.args(["-sS", "--fail", "--noproxy", "*", "-H", "Expect:", "-T"]).arg(source).arg(url);
    Ok(command)
}

/// Returns whether the installed iperf3 has `--skip-rx-copy`.
pub(crate) fn iperf_skips_the_copy() -> bool {
    let help = IPERF.command().and_then(|mut command| {
        command.arg("--help");
        Ok(process::output(command, b"", Duration::from_secs(10))?)
    });
    help.is_ok_and(|help| {
        [help.stdout, help.stderr].concat().windows(14).any(|text| text == b"--skip-rx-copy")
    })
}

fn own_client(workspace: &Workspace, role: &str, port: &str, source: &Path) -> Command {
    let mut command = workspace.role(role);
    command.arg(port).arg(source);
    command
}
