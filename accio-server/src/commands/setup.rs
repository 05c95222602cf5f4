//! The messages of the server to its helper: settings, and the description of a file.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// First argument that makes the program run as this helper. It is not a valid port.
pub(super) const HELPER: &str = "__commands";

/// How long commands may take to end after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_millis(200);

/// The command of `--on-commit`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OnCommit {
    pub(crate) command: Vec<String>,
    pub(crate) jobs: NonZeroUsize,
}

/// The command of `--accept-if`.
#[cfg(linux_sys)]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AcceptIf {
    pub(crate) command: Vec<String>,
    pub(crate) jobs: NonZeroUsize,
    pub(crate) timeout: Duration,
}

/// The settings that the helper receives when it starts.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) quiet: bool,
    pub(super) verbose: u8,
    pub(super) on_commit: Option<OnCommit>,
    #[cfg(linux_sys)]
    pub(super) accept_if: Option<AcceptIf>,
}

/// A complete file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) bytes: u64,
    pub(super) peer: Option<SocketAddr>,
    pub(super) identity: Option<String>,
    pub(super) digest: Option<String>,
}
