//! System calls on files and directories, relative to an open directory.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

pub(crate) use super::unnamed_file::{
    link_empty_path, link_proc, open_anonymous, preallocate, rename_new, reopen, start_writing,
    sync_data,
};
use super::{is_unsupported, permissions, retry};

/// Opens a directory.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// Creates a file under a name that does not exist.
pub(crate) fn create_new(dir: impl AsFd, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(&dir, name, flags, permissions(mode)))
}

/// Returns whether the error says that the file system does not support unnamed files. Some treat
/// the flag as an attempt to open the directory for writing.
pub(crate) fn has_no_unnamed_files(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS)
    )
}

/// Returns whether the error may say that unnamed files cannot be linked here at all, or not in this way:
/// a privilege is missing, there is no `/proc`, or a policy forbids it.
pub(crate) fn cannot_link(error: &io::Error) -> bool {
    is_unsupported(error)
        || matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::ACCESS))
}

/// Renames within the directory, replacing an existing file.
pub(crate) fn rename(dir: impl AsFd, from: &str, to: &str) -> io::Result<()> {
    retry(|| rustix::fs::renameat(&dir, from, &dir, to))
}

/// Sets the permissions of the file, regardless of the umask.
pub(crate) fn set_mode(file: impl AsFd, mode: u32) -> io::Result<()> {
    retry(|| rustix::fs::fchmod(&file, permissions(mode)))
}

/// Metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The twelve permission bits.
    pub(crate) mode: u32,
    /// Size in bytes.
    pub(crate) size: u64,
    /// Number of links; a removed directory has none.
    pub(crate) links: u64,
}

impl From<rustix::fs::Stat> for Stat {
    #[allow(
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        reason = "the types of the fields differ between systems"
    )]
    fn from(stat: rustix::fs::Stat) -> Self {
        Stat {
            mode: stat.st_mode as u32 & 0o7777,
            size: stat.st_size as u64,
            links: stat.st_nlink as u64,
        }
    }
}

/// Returns the metadata of an open file.
pub(crate) fn fstat(file: impl AsFd) -> io::Result<Stat> {
    retry(|| rustix::fs::fstat(&file)).map(Stat::from)
}

/// Returns the metadata of a name in the directory. Links are not followed.
pub(crate) fn stat(dir: impl AsFd, name: &str) -> io::Result<Stat> {
    retry(|| rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)).map(Stat::from)
}

/// Returns whether the file system of the directory is read-only.
pub(crate) fn is_read_only(dir: impl AsFd) -> io::Result<bool> {
    let stat = retry(|| rustix::fs::fstatvfs(&dir))?;
    Ok(stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
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

/// Reads bytes at `offset`, without moving the file's position; returns their number, 0 at the end.
pub(crate) fn read_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    retry(|| rustix::io::pread(&file, &mut *buffer, offset))
}

/// Returns whether both descriptors are of the same file.
pub(crate) fn is_same_file(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let [one, other] = [retry(|| rustix::fs::fstat(&one))?, retry(|| rustix::fs::fstat(&other))?];
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Returns whether the error says that the process or the system has no descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Makes the file system write buffered bytes and report errors, as closing a descriptor does.
/// Network file systems, and those in user space, may write only then.
pub(crate) fn flush(file: &OwnedFd) -> io::Result<()> {
    match file.try_clone() {
        Ok(duplicate) => Ok(nix::unistd::close(duplicate)?),
        // A sync takes longer, but needs no descriptor.
        Err(error) if is_out_of_descriptors(&error) => sync(file),
        Err(error) => Err(error),
    }
}

/// Sets the length of the file and releases blocks allocated after the end. The position is
/// unchanged.
pub(crate) fn truncate(file: impl AsFd, length: u64) -> io::Result<()> {
    retry(|| rustix::fs::ftruncate(&file, length))
}

/// Sets the position of the file to its start.
pub(crate) fn rewind(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))).map(drop)
}

/// Writes a file or directory to the disk.
pub(crate) fn sync(file: impl AsFd) -> io::Result<()> {
    retry(|| rustix::fs::fsync(&file))
}

/// Space and files that an unprivileged process may still use of a file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FreeSpace {
    pub(crate) bytes: u64,
    /// `None` if the number is not fixed.
    pub(crate) inodes: Option<Inodes>,
}

/// Number of inodes of a file system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inodes {
    /// Those that an unprivileged process may still use.
    pub(crate) free: u64,
    pub(crate) all: u64,
}

/// Returns the free space of the file system of the directory.
pub(crate) fn free_space(dir: impl AsFd) -> io::Result<FreeSpace> {
    let stat = retry(|| rustix::fs::fstatvfs(&dir))?;
    Ok(FreeSpace {
        bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: (stat.f_files > 0).then_some(Inodes { free: stat.f_favail, all: stat.f_files }),
    })
}

/// Returns whether the error says that a file has the maximum number of links, or no link left.
pub(crate) fn is_worn_out(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MLINK | Errno::NOENT))
}

/// Returns the error of a file that has the maximum number of links.
#[cfg(test)]
pub(crate) fn too_many_links() -> io::Error {
    Errno::MLINK.into()
}

/// Locks the directory for this descriptor alone, unless another one has locked it.
pub(crate) fn lock_alone(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive)?)
}

/// Locks the directory together with others that lock it the same way.
pub(crate) fn lock_shared(dir: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::flock(dir, FlockOperation::NonBlockingLockShared)?)
}

/// Returns the names in the directory.
pub(crate) fn names(dir: impl AsFd) -> io::Result<impl Iterator<Item = io::Result<CString>>> {
    let entries = rustix::fs::Dir::read_from(dir)?;
    Ok(entries.map(|entry| Ok(entry?.file_name().to_owned())))
}
