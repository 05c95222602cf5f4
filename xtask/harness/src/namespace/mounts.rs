//! A mount namespace for this process and its children.

use std::io;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

/// Moves the calling thread to a new mount namespace, where other programs do not see its mounts.
/// Threads and processes that it starts afterwards are in the same namespace.
///
/// A program that creates a mount namespace gets a copy of every mount, and a file system stays
/// mounted until its last copy is gone. Without a namespace of its own, this process could therefore
/// neither unmount nor mount again a file system while another program has a copy.
///
/// # Errors
///
/// Returns an error if this process may not create namespaces.
pub fn hide_mounts() -> io::Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    // Unmounts outside still take effect here.
    let (none, flags) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE);
    Ok(nix::mount::mount(none, "/", none, flags, none)?)
}
