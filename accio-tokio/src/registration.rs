//! Descriptors in the runtime's event queue.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A duplicate of a watched descriptor. It must be dropped before the socket is closed, because the
/// peer is not notified while a duplicate is open.
pub(crate) type Registration = AsyncFd<OwnedFd>;

/// Watches a duplicate of a descriptor: the number of a closed descriptor may belong to another
/// socket when it leaves the queue.
#[allow(deprecated, reason = "the replacement is unsafe, because a descriptor may not be owned")]
pub(crate) fn register(descriptor: BorrowedFd<'_>, interest: Interest) -> io::Result<Registration> {
    AsyncFd::with_interest(descriptor.try_clone_to_owned()?, interest)
}
