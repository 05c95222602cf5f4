//! The programs of other people.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Somebody else's program, and where it comes from.
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
        /// All that the benchmark can use.
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
    IPERF: "iperf3", "iperf3", ["--version"];
    STRACE: "strace", "strace", ["--version"];
}

impl Tool {
    /// Where it is: in the path, or where Debian keeps servers.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
        let candidates = std::env::split_paths(&path).chain(more);
        candidates.map(|dir| dir.join(self.program)).find(|path| path.is_file())
    }

    /// The first line it says about itself.
    pub(crate) fn version(&self) -> Option<String> {
        let output =
            Command::new(self.find()?).args(self.version).stdin(Stdio::null()).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // socat and nc introduce themselves before they say which they are.
        let line = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()))?;
        Some(line.trim().to_owned())
    }

    pub(super) fn command(&self) -> Result<Command> {
        Ok(Command::new(self.find().with_context(|| format!("no {}", self.program))?))
    }
}

/// strace, if it is there.
pub(crate) fn strace() -> Option<PathBuf> {
    STRACE.find()
}
