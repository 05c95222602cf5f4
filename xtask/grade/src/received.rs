//! Reads the files that a server stored. The server owns the directory and may have put anything
//! there: a link to another user's file, a pipe, a file larger than the memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

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
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // `openat2` could resolve both at once, but older kernels and some containers do not have it.
    let dir =
        rustix::fs::open(dir, DIRECTORY | NO_LINK, Mode::empty()).map_err(not_through_link)?;
    // Opening a pipe would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | NO_LINK;
    let file = rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(not_through_link)?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

const NO_LINK: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// The server may have made its directory unreadable, which does not matter here.
#[cfg(target_os = "linux")]
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::PATH);
#[cfg(not(target_os = "linux"))]
const DIRECTORY: OFlags = OFlags::DIRECTORY;

fn not_through_link(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it is a symbolic link, not a regular file"),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    #[cfg(target_os = "linux")]
    use std::io::Write;
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
        assert!(!holds(&dir.join("3.file"), b"three"));
    }

    /// Kernels before 5.6 lack `openat2`, and seccomp filters of containers may deny it.
    #[cfg(target_os = "linux")]
    #[test]
    fn works_without_openat2() {
        use accio_harness::{process, tools};

        if let Err(why) = tools::require_tracing() {
            let _ = writeln!(io::stderr(), "skipped: {why}");
            return;
        }
        let check = tempfile::tempdir().unwrap();
        let mut traced = std::process::Command::new("strace");
        traced.args(["-f", "-qq", "-e", "inject=openat2:error=ENOSYS", "-o"]);
        traced.arg(check.path().join("trace")).arg(std::env::current_exe().unwrap());
        traced.args(["--exact", "received::tests::follows_no_link_and_waits_for_no_pipe"]);
        let output = process::output(traced, b"", std::time::Duration::from_secs(60)).unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
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
