//! The files that a sandbox's programs see.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use rustix::fs::{Mode, OFlags};

use super::files::Files;
use crate::os_error_text;

/// Directories in which programs may write temporary files, each with a file system of its own.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// Options of these file systems.
const SMALL: &str = "size=64m,nr_inodes=4k,mode=1777";
/// Directories with the files of users, and with the sockets of services.
const PRIVATE: [&str; 5] = ["/home", "/root", "/run", "/mnt", "/media"];
/// Directories without which no program runs.
const SYSTEM: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/etc", "/proc", "/sys", "/dev"];
/// Maximum number of files in a check's directory.
const FILES: u32 = 50_000;

/// The files that programs in a mount namespace can see.
#[derive(Debug)]
pub(super) struct View {
    readable: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    hidden: Vec<PathBuf>,
    /// Sockets of services outside the hidden directories.
    sockets: Vec<PathBuf>,
}

impl View {
    /// Creates a view of the system with these files.
    pub(super) fn new(files: Files) -> View {
        let real = |path: PathBuf| fs::canonicalize(path).ok();
        let mut hidden: Vec<PathBuf> = PRIVATE.into_iter().map(PathBuf::from).collect();
        hidden.extend(files.hidden);
        hidden.extend(env::var_os("HOME").map(PathBuf::from));
        hidden.extend(env::current_dir().ok());
        hidden.push(env::temp_dir());
        let mut hidden: Vec<PathBuf> = hidden
            .into_iter()
            .filter_map(real)
            .filter(|path| {
                path.is_dir() && !SYSTEM.iter().any(|one| Path::new(one).starts_with(path))
            })
            .collect();
        let mut readable: Vec<PathBuf> = files.readable.into_iter().filter_map(real).collect();
        // Such as the current directory, in `accio-grade .`. What is mounted on a directory to hide it
        // would cover the directory again after it is made visible.
        hidden.retain(|path| !readable.contains(path));
        // Outer directories first; inner ones are hidden with them.
        hidden.sort();
        hidden.dedup_by(|inner, outer| inner.starts_with(outer));
        readable.extend(interpreters().into_iter().filter_map(real));
        let writable: Vec<PathBuf> = files.writable.into_iter().filter_map(real).collect();
        readable.sort();
        readable.dedup_by(|inner, outer| inner.starts_with(outer));
        let is_hidden = |path: &Path| {
            let all = TEMPORARY.iter().map(Path::new).chain(hidden.iter().map(PathBuf::as_path));
            all.into_iter().any(|hidden| path.starts_with(hidden))
        };
        let mut sockets = sockets();
        sockets.retain(|path| !is_hidden(path) || readable.iter().any(|one| path.starts_with(one)));
        View { readable, writable, hidden, sockets }
    }

    /// Changes the mount namespace of this thread to this view.
    pub(super) fn apply(&self) -> io::Result<()> {
        change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        let is_hidden = |path: &Path| {
            let all =
                TEMPORARY.iter().map(Path::new).chain(self.hidden.iter().map(PathBuf::as_path));
            all.into_iter().any(|hidden| path.starts_with(hidden))
        };
        let mut kept: Vec<(&Path, OwnedFd)> = Vec::new();
        for path in self.readable.iter().filter(|path| is_hidden(path)).chain(&self.writable) {
            kept.push((path, open(path)?));
        }
        for directory in TEMPORARY.iter().map(Path::new).filter(|directory| directory.is_dir()) {
            mount_tmpfs(directory, SMALL)?;
        }
        for directory in self.hidden.iter().filter(|directory| directory.is_dir()) {
            if !TEMPORARY.iter().any(|temporary| directory.starts_with(temporary)) {
                mount_tmpfs(directory, "size=1m,mode=755")?;
            }
        }
        for (path, source) in kept {
            bind(path, &source)?;
        }
        for socket in &self.sockets {
            cover(socket)?;
        }
        self.make_others_read_only()
    }

    /// Makes all file systems read-only except those that programs may write to.
    fn make_others_read_only(&self) -> io::Result<()> {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
        for line in mounts.lines() {
            let mut fields = line.split(' ').skip(4);
            let (Some(point), Some(options)) = (fields.next(), fields.next()) else { continue };
            let point = PathBuf::from(unescaped(point));
            // The first process mounts its own /proc.
            let stays = point.starts_with("/proc")
                || self.writable.iter().any(|path| point.starts_with(path))
                || TEMPORARY.iter().any(|directory| point == Path::new(directory));
            if stays {
                continue;
            }
            let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            for option in options.split(',') {
                flags |= match option {
                    "nosuid" => MsFlags::MS_NOSUID,
                    "nodev" => MsFlags::MS_NODEV,
                    "noexec" => MsFlags::MS_NOEXEC,
                    "noatime" => MsFlags::MS_NOATIME,
                    "nodiratime" => MsFlags::MS_NODIRATIME,
                    "relatime" => MsFlags::MS_RELATIME,
                    _ => MsFlags::empty(),
                };
            }
            match change(&point, flags) {
                // It is below a hidden directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                other => other.map_err(|error| named("make read-only", &point, &error))?,
            }
        }
        Ok(())
    }
}

/// Mounts the process table of the calling process's PID namespace.
pub(super) fn mount_proc() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    nix::mount::mount(Some("proc"), "/proc", Some("proc"), flags, none)
        .map_err(|error| named("mount", Path::new("/proc"), &error.into()))
}

/// Mounts a file system of `bytes` bytes on a check's directory.
pub(super) fn limit_size(dir: &Path, bytes: u64, uid: Option<u32>) -> io::Result<()> {
    let uid = uid.unwrap_or_default();
    let options = format!("size={bytes},nr_inodes={FILES},mode=700,uid={uid},gid={uid}");
    mount_tmpfs(dir, &options)
}

/// Removes that file system.
pub(super) fn remove(dir: &Path) {
    // A process of the kernel may still use it.
    let _ = nix::mount::umount2(dir, MntFlags::MNT_DETACH);
}

/// Mounts a file system in memory.
pub(super) fn mount_tmpfs(dir: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options))
        .map_err(|error| named("mount a file system on", dir, &error.into()))
}

/// Changes the flags of a mount.
pub(super) fn change(point: impl AsRef<Path>, flags: MsFlags) -> io::Result<()> {
    let none: Option<&str> = None;
    Ok(nix::mount::mount(none, point.as_ref(), none, flags, none)?)
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes an opened directory or file visible at `path` again.
fn bind(path: &Path, source: &OwnedFd) -> io::Result<()> {
    let source = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    if source.is_dir() {
        fs::create_dir_all(path)?;
    } else if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
        File::create(path)?;
    }
    let (flags, none): (_, Option<&str>) = (MsFlags::MS_BIND | MsFlags::MS_REC, None);
    nix::mount::mount(Some(&source), path, none, flags, none)
        .map_err(|error| named("show", path, &error.into()))
}

/// Makes a socket unreachable: a read-only file system does not prevent a connection.
fn cover(socket: &Path) -> io::Result<()> {
    let (flags, none): (_, Option<&str>) = (MsFlags::MS_BIND, None);
    match nix::mount::mount(Some("/dev/null"), socket, none, flags, none) {
        // Its service has ended.
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(named("hide", socket, &error.into())),
    }
}

/// Returns the paths of the UNIX sockets in the network namespace of this process.
fn sockets() -> Vec<PathBuf> {
    let table = fs::read("/proc/self/net/unix").unwrap_or_default();
    let table = String::from_utf8_lossy(&table);
    let paths = table.lines().filter_map(|line| Some(&line[line.find(" /")? + 1..]));
    let mut sockets: Vec<PathBuf> = paths.filter_map(|path| fs::canonicalize(path).ok()).collect();
    // Another file may have taken the name since.
    sockets.retain(|path| fs::metadata(path).is_ok_and(|file| file.file_type().is_socket()));
    sockets.sort();
    sockets.dedup();
    sockets
}

/// Returns the directories of interpreters that are installed for a user, such as those of pyenv.
fn interpreters() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let homes: Vec<PathBuf> =
        PRIVATE.iter().map(PathBuf::from).chain(env::var_os("HOME").map(PathBuf::from)).collect();
    let mut found = Vec::new();
    for directory in env::split_paths(&path) {
        let Some(home) = homes.iter().filter(|home| directory.starts_with(home)).max() else {
            continue;
        };
        let Some(parent) = directory.parent().filter(|_| directory != *home) else { continue };
        // Other directories next to these contain private files.
        let is_shared = parent == home || parent.ends_with(".local") || parent.ends_with(".cargo");
        if is_shared {
            found.push(parent.join("lib"));
            found.push(directory);
        } else {
            found.push(parent.to_owned());
        }
    }
    found
}

/// Replaces the kernel's escapes, such as `\040` for a space.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(code.into());
                plain.push_str(&part[3..]);
            }
            None => plain.push_str(part),
        }
    }
    plain
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    let why = os_error_text(error);
    io::Error::new(error.kind(), format!("cannot {what} {}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_escapes() {
        assert_eq!(unescaped(r"/mnt/a\040b\134c"), "/mnt/a b\\c");
        assert_eq!(unescaped("/plain"), "/plain");
    }

    #[test]
    fn never_hides_the_system() {
        let files = Files { hidden: vec!["/".into(), "/usr".into()], ..Files::default() };
        let view = View::new(files);
        assert!(view.hidden.iter().all(|path| path != Path::new("/") && path != Path::new("/usr")));
    }
}
