//! Calls on files and directories, all relative to an open directory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags};

use super::retry;

/// Opens a directory to work in.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// A file in the directory that has no name and vanishes with its descriptor.
pub(crate) fn open_anonymous(dir: impl AsFd, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(&dir, ".", flags, mode))
}

/// A new file under a name that nothing has yet.
pub(crate) fn create_new(dir: impl AsFd, name: &str, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(&dir, name, flags, mode))
}

/// Gives the open file a name, by its descriptor alone. Older kernels want a privilege for it.
pub(crate) fn link_empty_path(
    file: impl AsFd,
    dir: impl AsFd,
    name: &str,
) -> rustix::io::Result<()> {
    rustix::fs::linkat(&file, "", &dir, name, AtFlags::EMPTY_PATH)
}

/// Gives the open file a name, through `/proc`.
pub(crate) fn link_proc(file: impl AsFd, dir: impl AsFd, name: &str) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    rustix::fs::linkat(CWD, path, &dir, name, AtFlags::SYMLINK_FOLLOW)
}

/// Renames within the directory, replacing what has the new name.
pub(crate) fn rename(dir: impl AsFd, from: &str, to: &str) -> io::Result<()> {
    retry(|| rustix::fs::renameat(&dir, from, &dir, to))
}

/// Renames within the directory, to a name that nothing has. Says whether the old name is gone: it
/// stays, beside the new one, where the file system cannot do both in one step.
pub(crate) fn rename_new(dir: impl AsFd, from: &str, to: &str) -> io::Result<bool> {
    match retry(|| rustix::fs::renameat_with(&dir, from, &dir, to, RenameFlags::NOREPLACE)) {
        Err(error) if super::is_unsupported(&error) => {
            retry(|| rustix::fs::linkat(&dir, from, &dir, to, AtFlags::empty())).map(|()| false)
        }
        renamed => renamed.map(|()| true),
    }
}

/// Sets who may do what with the file, whatever the process's umask.
pub(crate) fn set_mode(file: impl AsFd, mode: Mode) -> io::Result<()> {
    retry(|| rustix::fs::fchmod(&file, mode))
}

/// Removes a name from the directory.
pub(crate) fn unlink(dir: impl AsFd, name: &str) -> io::Result<()> {
    retry(|| rustix::fs::unlinkat(&dir, name, AtFlags::empty()))
}

/// Writes all of `bytes` at the file's position.
pub(crate) fn write_all(file: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry(|| rustix::io::write(&file, bytes))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = &bytes[written..],
        }
    }
    Ok(())
}

/// Sets the file's length; what is allocated behind it is released. The position stays.
pub(crate) fn truncate(file: impl AsFd, length: u64) -> io::Result<()> {
    retry(|| rustix::fs::ftruncate(&file, length))
}

/// Sets the file's position to its start.
pub(crate) fn rewind(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))).map(drop)
}

/// Allocates disk blocks behind the end without changing the length.
pub(crate) fn preallocate(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    retry(|| rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, offset, length))
}

/// Writes the file's bytes, and what is needed to find them, to the disk.
pub(crate) fn sync_data(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::fdatasync(&file))
}

/// Writes a file or directory to the disk.
pub(crate) fn sync(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::fsync(&file))
}

/// Bytes that an unprivileged process may still use of the file system.
pub(crate) fn free_bytes(dir: impl AsFd) -> io::Result<u64> {
    let stat = retry(|| rustix::fs::fstatvfs(&dir))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Locks the directory for this descriptor alone, unless anyone else has it locked.
pub(crate) fn lock_alone(dir: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive)
}

/// Locks the directory together with others that do.
pub(crate) fn lock_shared(dir: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::flock(dir, FlockOperation::NonBlockingLockShared)
}

/// The names in a directory.
pub(crate) fn names(dir: impl AsFd) -> io::Result<impl Iterator<Item = io::Result<CString>>> {
    let entries = rustix::fs::Dir::read_from(dir)?;
    Ok(entries.map(|entry| Ok(entry?.file_name().to_owned())))
}
