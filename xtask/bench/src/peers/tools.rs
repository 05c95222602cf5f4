//! Third-party programs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use accio_harness::{process, tools};
use anyhow::{Context, Result};

/// Time limit for a program to print its version.
const LIMIT: Duration = Duration::from_secs(10);

/// A third-party program and its Debian package.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    version: &'static [&'static str],
}

macro_rules! tools {
    ($($name:ident: $program:literal, $package:literal, [$($version:literal),*];)*) => {
        $(pub(super) static $name: Tool =
            Tool { program: $program, package: $package, version: &[$($version),*] };)*
        /// All third-party programs that the benchmark can use.
        pub(crate) static TOOLS: &[&Tool] = &[$(&$name),*];
    };
}

tools! {
    NC: "nc.openbsd", "netcat-openbsd", ["-h"];
    NCAT: "ncat", "ncat", ["--version"];
    SOCAT: "socat", "socat", ["-V"];
    NGINX: "nginx", "nginx", ["-v"];
    CURL: "curl", "curl", ["--version"];
    RSYNC: "rsync", "rsync", ["--version"];
    VSFTPD: "vsftpd", "vsftpd", ["-v"];
    PYTHON: "python3", "python3", ["--version"];
    DD: "dd", "coreutils", ["--version"];
    IPERF: "iperf3", "iperf3", ["--version"];
    STRACE: "strace", "strace", ["--version"];
}

impl Tool {
    /// Returns its path, if it is installed.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        tools::find(self.program)
    }

    /// Returns the line with its version.
    pub(crate) fn version(&self) -> Option<String> {
        let mut command = Command::new(self.find()?);
        command.args(self.version);
        let output = process::output(command, b"", LIMIT).ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // socat and nc print another line before the version.
        let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()))?;
        Some(line.trim().to_owned())
    }

    pub(super) fn command(&self) -> Result<Command> {
        Ok(Command::new(self.find().with_context(|| format!("{} is not installed", self.program))?))
    }
}

/// Returns the path of strace, if it is installed.
pub(crate) fn strace() -> Option<PathBuf> {
    STRACE.find()
}

/// Returns a `socat` that copies in one direction, with a buffer of this number of bytes.
pub(super) fn socat(buffer: Option<usize>) -> Result<Command> {
    let mut command = SOCAT.command()?;
    command.arg("-u");
    if let Some(buffer) = buffer {
        command.args(["-b", &buffer.to_string()]);
    }
    Ok(command)
}
