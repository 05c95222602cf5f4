//! Linux calls for files that get their name only when they are complete.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags, RenameFlags};

use crate::sys::{is_unsupported, permissions, retry};

/// Opens a file in the directory that has no name and disappears when its descriptor is closed.
pub(crate) fn open_anonymous(dir: impl AsFd, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(&dir, ".", flags, permissions(mode)))
}

/// Links the open file by its descriptor alone, for which older kernels require a privilege.
pub(crate) fn link_empty_path(file: impl AsFd, dir: impl AsFd, name: &str) -> io::Result<()> {
    Ok(rustix::fs::linkat(&file, "", &dir, name, AtFlags::EMPTY_PATH)?)
}

/// Links the open file through `/proc`.
pub(crate) fn link_proc(file: impl AsFd, dir: impl AsFd, name: &str) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(rustix::fs::linkat(CWD, path, &dir, name, AtFlags::SYMLINK_FOLLOW)?)
}

/// Opens the open file again, for reading. The time of its last access does not change: the server
/// owns the file, which the system requires for that.
pub(crate) fn reopen(file: impl AsFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, &path, flags, rustix::fs::Mode::empty()))
}

/// Renames within the directory to a name that does not exist. Returns whether the old name is
/// gone: it remains, next to the new one, if the file system cannot do both in one step.
pub(crate) fn rename_new(dir: impl AsFd, from: &str, to: &str) -> io::Result<bool> {
    match retry(|| rustix::fs::renameat_with(&dir, from, &dir, to, RenameFlags::NOREPLACE)) {
        Err(error) if is_unsupported(&error) => {
            retry(|| rustix::fs::linkat(&dir, from, &dir, to, AtFlags::empty())).map(|()| false)
        }
        renamed => renamed.map(|()| true),
    }
}

/// Allocates disk blocks after the end without changing the length.
pub(crate) fn preallocate(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    retry(|| rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, offset, length))
}

/// Writes the bytes of the file, and the metadata needed to find them, to the disk.
pub(crate) fn sync_data(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::fdatasync(&file))
}

/// Starts writing a range of the file to the disk, without waiting. This is only a hint: the next
/// sync writes the rest in any case.
pub(crate) fn start_writing(file: impl AsFd, offset: u64, length: u64) {
    // The advice that pages are not needed starts their write-back. The range ends one byte early,
    // so that the last page is not dropped: for a small file nothing is dropped then, which would
    // cost more than the write-back gains.
    let Some(length) = std::num::NonZeroU64::new(length.saturating_sub(1)) else { return };
    let _ = rustix::fs::fadvise(file, offset, Some(length), rustix::fs::Advice::DontNeed);
}
