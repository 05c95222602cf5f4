//! The command lines of the helpers, and what is sent to them.

/// This program, even if its file is hidden or was replaced.
pub(super) const SELF: &str = "/proc/self/exe";
/// First argument of the helper in front of a program.
pub(super) const RUN: &str = "__sandbox-run";
/// First argument of the first process of a namespace.
pub(super) const INIT: &str = "__sandbox-init";
/// First argument of the process that tries whether sandboxes are possible.
pub(super) const PROBE: &str = "__sandbox-probe";
/// Written by the first process when it is ready.
pub(super) const READY: &[u8] = b"r";
/// Makes the first process kill all others.
pub(super) const KILL: &[u8] = b"k";
