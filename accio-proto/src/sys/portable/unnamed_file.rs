//! Files that get their name only when they are complete, with calls that every system has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::sys::retry;

/// Unnamed files are not supported.
pub(crate) fn open_anonymous(_: impl AsFd, _: u32) -> io::Result<OwnedFd> {
    Err(Errno::OPNOTSUPP.into())
}

/// Linking unnamed files is not supported.
pub(crate) fn link_empty_path(_: impl AsFd, _: impl AsFd, _: &str) -> io::Result<()> {
    Err(Errno::NOSYS.into())
}

/// Linking unnamed files is not supported.
pub(crate) fn link_proc(_: impl AsFd, _: impl AsFd, _: &str) -> io::Result<()> {
    Err(Errno::NOSYS.into())
}

/// Opening a file by its descriptor is not supported.
pub(crate) fn reopen(_: impl AsFd) -> io::Result<OwnedFd> {
    Err(Errno::NOSYS.into())
}

/// Gives the file a second name that does not exist; returns that the old one remains.
pub(crate) fn rename_new(dir: impl AsFd, from: &str, to: &str) -> io::Result<bool> {
    retry(|| rustix::fs::linkat(&dir, from, &dir, to, AtFlags::empty())).map(|()| false)
}

/// Preallocation is not supported.
pub(crate) fn preallocate(_: impl AsFd, _: u64, _: u64) -> io::Result<()> {
    Err(Errno::OPNOTSUPP.into())
}

/// Writes the file to the disk.
pub(crate) fn sync_data(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::fsync(&file))
}

/// Does nothing: a sync writes the file.
pub(crate) fn start_writing(_: impl AsFd, _: u64, _: u64) {}
