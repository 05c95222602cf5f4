//! Reads the files that a server stored. The server owns the directory and may have put anything
//! there: a link to another user's file, a pipe, a file larger than the memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Number of bytes that are read beyond those that are expected.
const MORE: usize = 1 << 20;

/// Returns the length of a stored file.
pub(crate) fn length(path: &Path) -> io::Result<u64> {
    Ok(open(path)?.metadata()?.len())
}

/// Returns the content of a stored file, or only its first bytes if it has many more than
/// `expected`.
pub(crate) fn read(path: &Path, expected: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take((expected + MORE) as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// Returns whether the file has exactly this content now.
pub(crate) fn holds(path: &Path, content: &[u8]) -> bool {
    length(path).is_ok_and(|length| length == content.len() as u64)
        && read(path, content.len()).is_ok_and(|now| now == content)
}

/// Opens a stored file, `CHECK/FILE-DIR/N.file`. The directory of the check is the kit's; below it no
/// link is followed.
fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(open_below(path, flags)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

#[cfg(target_os = "linux")]
fn open_below(path: &Path, flags: OFlags) -> io::Result<rustix::fd::OwnedFd> {
    use rustix::fs::ResolveFlags;

    let parts = path.parent().and_then(|dir| Some((dir.parent()?, dir.file_name()?)));
    let (Some((check, dir)), Some(name)) = (parts, path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let check = rustix::fs::open(check, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let below = Path::new(dir).join(name);
    match rustix::fs::openat2(&check, below, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::LOOP) => {
            Err(io::Error::other("it is a symbolic link, not a regular file"))
        }
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_below(path: &Path, flags: OFlags) -> io::Result<rustix::fd::OwnedFd> {
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn follows_no_link_and_waits_for_no_pipe() {
        let check = tempfile::tempdir().unwrap();
        let dir = check.path().join("received");
        fs::create_dir(&dir).unwrap();
        fs::write(check.path().join("secret"), "secret").unwrap();
        symlink("../secret", dir.join("1.file")).unwrap();
        fs::write(dir.join("3.file"), "three").unwrap();
        let error = read(&dir.join("1.file"), 6).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("2.file"), Mode::from(0o600)).unwrap();
        assert!(read(&dir.join("2.file"), 6).is_err() && !holds(&dir.join("2.file"), b""));
        assert!(holds(&dir.join("3.file"), b"three") && !holds(&dir.join("3.file"), b"two"));
        // The server may replace its directory, too.
        fs::rename(&dir, check.path().join("other")).unwrap();
        symlink("other", &dir).unwrap();
        #[cfg(target_os = "linux")]
        assert!(!holds(&dir.join("3.file"), b"three"));
    }

    #[test]
    fn reads_only_a_part_of_a_file_that_is_much_too_long() {
        let check = tempfile::tempdir().unwrap();
        fs::create_dir(check.path().join("received")).unwrap();
        let path = check.path().join("received/1.file");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(length(&path).unwrap(), 1 << 40);
        assert_eq!(read(&path, 5).unwrap().len(), 5 + MORE);
    }
}
