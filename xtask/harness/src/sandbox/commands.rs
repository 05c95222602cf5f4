//! The command lines of the helpers, and what is sent to them.

/// This program, even if its file is hidden or was replaced.
pub(super) const SELF: &str = "/proc/self/exe";
/// First argument of the helper in front of a program.
pub(super) const RUN: &str = "__sandbox-run";
/// Argument of that helper if it shall deny system calls.
pub(super) const DENIES: &str = "deny";
/// First argument of the first process of a namespace.
pub(super) const INIT: &str = "__sandbox-init";
/// First argument of the process that tries whether sandboxes are possible.
pub(super) const PROBE: &str = "__sandbox-probe";
/// Written by the helper in front of a program that it cannot execute; the error number follows.
pub(super) const NOT_EXECUTED: u8 = b'e';
/// Written by that helper if it cannot prepare the process; a text follows.
pub(super) const NOT_PREPARED: u8 = b'p';
/// Written by the first process when it is ready.
pub(super) const READY: &[u8] = b"r";
/// Makes the first process kill all others.
pub(super) const KILL: &[u8] = b"k";
