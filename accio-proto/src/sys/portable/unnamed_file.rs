//! Files on their way to a name, by what every system has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::sys::retry;

/// There are no nameless files here.
pub(crate) fn open_anonymous(_: impl AsFd, _: u32) -> io::Result<OwnedFd> {
    Err(Errno::OPNOTSUPP.into())
}

/// Nor names for them.
pub(crate) fn link_empty_path(_: impl AsFd, _: impl AsFd, _: &str) -> io::Result<()> {
    Err(Errno::NOSYS.into())
}

/// In no way.
pub(crate) fn link_proc(_: impl AsFd, _: impl AsFd, _: &str) -> io::Result<()> {
    Err(Errno::NOSYS.into())
}

/// Gives the file a second name, one that nothing has; says that the old one is still there.
pub(crate) fn rename_new(dir: impl AsFd, from: &str, to: &str) -> io::Result<bool> {
    retry(|| rustix::fs::linkat(&dir, from, &dir, to, AtFlags::empty())).map(|()| false)
}

/// Room comes as it is needed here.
pub(crate) fn preallocate(_: impl AsFd, _: u64, _: u64) -> io::Result<()> {
    Err(Errno::OPNOTSUPP.into())
}

/// Writes the file to the disk.
pub(crate) fn sync_data(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::fsync(&file))
}

/// Writes when it is synced.
pub(crate) fn start_writing(_: impl AsFd, _: u64, _: u64) {}
