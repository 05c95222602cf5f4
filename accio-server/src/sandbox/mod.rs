//! Sandboxes the server once it listens: Landlock restricts files, seccomp restricts system calls.

mod files;
mod system_calls;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accio_cli::Failure;
use clap::ValueEnum;
use landlock::{AccessFs, BitFlags, CompatLevel, RulesetStatus, Scope};

#[cfg(feature = "digest")]
use files::REOPENING;
use files::{AT_JOURNAL, Confinement, IN_DIRECTORY};

/// The requested level of sandboxing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// Fail unless the sandbox is complete
    Require,
    /// Use as much as the kernel supports
    Try,
    /// No sandbox
    Off,
}

impl Sandbox {
    /// Returns whether the server is to be sandboxed.
    pub(crate) fn is_on(self) -> bool {
        self != Sandbox::Off
    }

    /// Restricts this thread, and the threads that it starts later, to the directory that `dir`
    /// refers to and to reading files below `readable`. The threads may send signals only to the
    /// process group `helper`.
    pub(crate) fn confine(
        self,
        dir: impl AsFd,
        readable: &[OwnedFd],
        helper: Option<i32>,
    ) -> Result<(), Failure> {
        let required = match self {
            Sandbox::Off => return Ok(()),
            Sandbox::Try => CompatLevel::BestEffort,
            Sandbox::Require => CompatLevel::HardRequirement,
        };
        let confinement = Confinement {
            required,
            dir: dir.as_fd(),
            access: IN_DIRECTORY,
            readable,
            scopes: scopes(helper),
        };
        match confinement.apply() {
            Ok(RulesetStatus::FullyEnforced) => log::info!("Landlock confines the server"),
            Ok(RulesetStatus::PartiallyEnforced) => {
                log::info!("Landlock confines the server as far as this kernel can");
            }
            Ok(RulesetStatus::NotEnforced) => {
                self.settle("the files of the server", "the kernel has no Landlock")?;
            }
            Err(error) => self.settle("the files of the server", error)?,
        }
        match system_calls::restrict(helper) {
            Ok(()) => log::info!("seccomp confines the server"),
            Err(error) => self.settle("the system calls of the server", error)?,
        }
        Ok(())
    }

    /// Continues without a part of the sandbox, unless it is required.
    fn settle(self, what: &str, why: impl std::fmt::Display) -> Result<(), Failure> {
        if self == Sandbox::Require {
            let what = format!("cannot restrict {what}");
            return Err(Failure::new(what, why).with_advice("--sandbox try continues without"));
        }
        log::warn!("cannot restrict {what}, continuing without: {why}");
        Ok(())
    }
}

/// Restricts the process that reopens the journal to the journal's directory.
pub(crate) fn confine_journal_opener(dir: BorrowedFd<'_>) {
    confine_helper(dir, AT_JOURNAL, "the journal");
}

/// Restricts the process that reopens uploads to reading files of their directory.
#[cfg(feature = "digest")]
pub(crate) fn confine_reopener(dir: BorrowedFd<'_>) {
    confine_helper(dir, REOPENING, "uploads");
}

fn confine_helper(dir: BorrowedFd<'_>, access: BitFlags<AccessFs>, what: &str) {
    let scopes = scopes(None);
    let required = CompatLevel::BestEffort;
    if let Err(error) = (Confinement { required, dir, access, readable: &[], scopes }).apply() {
        log::warn!("cannot confine the process that opens {what}: {error}");
    }
}

/// Landlock cannot allow signals to the helper process alone, so if there is one, seccomp restricts
/// signals instead.
fn scopes(helper: Option<i32>) -> BitFlags<Scope> {
    match helper {
        Some(_) => Scope::AbstractUnixSocket.into(),
        None => Scope::AbstractUnixSocket | Scope::Signal,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use accio_proto::{Connection, DirSink, FileSink, SinkFile};
    use rustix::process::{Pid, Signal};
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;

    /// Runs `attempt` in a thread that is restricted to `dir` like a server.
    fn confined(dir: &Path, attempt: impl FnOnce(&DirSink) + Send) {
        let sink = DirSink::create(dir).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                Sandbox::Require.confine(&sink, &[], None).unwrap();
                attempt(&sink);
            });
            thread.join().unwrap()
        })
    }

    fn denied<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn denies_access_outside_the_directory() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let dir = outside.path().join("received");
        confined(&dir, |_| {
            assert!(denied(File::open(&secret)), "read");
            assert!(denied(File::options().append(true).open(&secret)), "write");
            assert!(denied(File::create(outside.path().join("new"))), "create");
            assert!(denied(fs::remove_file(&secret)), "remove");
            assert!(denied(fs::create_dir(outside.path().join("sub"))), "make a directory");
            assert!(denied(fs::read_dir(outside.path())), "list");
            assert!(denied(fs::rename(&secret, dir.join("1.file"))), "move in");
            assert!(denied(File::open("/etc/passwd")), "read the system's files");
        });
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
    }

    #[test]
    fn denies_reading_received_files() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let stored = dir.path().join("1.file");
        fs::write(dir.path().join("9.file"), "another's").unwrap();
        confined(dir.path(), |sink| {
            assert!(denied(File::open(dir.path().join("9.file"))), "read in the directory");
            assert!(denied(fs::read_dir(dir.path())), "list the directory");
            let mut file = sink.open(&Connection::new(1)).unwrap();
            file.write(b"content").unwrap();
            let link = format!("/proc/self/fd/{}", file.descriptor().unwrap().as_raw_fd());
            assert!(denied(File::open(link)), "read an upload");
            assert!(file.reopen().is_none(), "read an upload, by the sink");
            file.commit().unwrap();
            assert!(denied(File::open(&stored)), "read an own file");
            let mut both = File::options();
            assert!(denied(both.read(true).write(true).open(&stored)), "read and write");
            File::options().write(true).open(&stored).unwrap();
            let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::TMPFILE;
            let unnamed = rustix::fs::openat(sink, ".", flags, rustix::fs::Mode::empty());
            assert!(denied(unnamed.map_err(Into::into)), "create a readable file");
        });
    }

    /// The helper may read nothing elsewhere and change nothing.
    #[cfg(feature = "digest")]
    #[test]
    fn the_process_that_reopens_uploads_can_only_read_them() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let dir = outside.path().join("received");
        fs::create_dir(&dir).unwrap();
        let stored = dir.join("1.file");
        fs::write(&stored, "stored").unwrap();
        let opened = File::open(&dir).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                confine_reopener(opened.as_fd());
                assert!(denied(File::open(&secret)), "read elsewhere");
                assert!(denied(File::options().write(true).open(&stored)), "write");
                assert!(denied(File::create(dir.join("2.file"))), "create");
                assert!(denied(fs::remove_file(&stored)), "remove");
                assert!(denied(fs::read_dir(&dir)), "list");
                assert!(denied(Command::new("/bin/sh").args(["-c", "true"]).output()), "run");
                File::open(&stored).unwrap();
            });
        });
    }

    #[test]
    fn denies_running_programs() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        confined(dir.path(), |_| {
            assert!(denied(Command::new(own).arg("--list").output()), "run a program");
            assert!(denied(Command::new("/bin/sh").args(["-c", "true"]).output()), "run a shell");
        });
    }

    #[test]
    fn denies_connecting_but_serves_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        confined(dir.path(), |_| {
            assert!(denied(TcpStream::connect(address)));
        });
        let client = thread::spawn(move || TcpStream::connect(address).map(drop));
        confined(dir.path(), |_| assert!(listener.accept().is_ok(), "accept"));
        client.join().unwrap().ok();
    }

    #[test]
    fn allows_every_way_of_creating_a_file() {
        use accio_proto::{FastPath, FastPaths};
        for without in [&[][..], &[FastPath::EmptyPath], &[FastPath::Tmpfile]] {
            let dir = tempfile::tempdir().unwrap();
            let paths = FastPaths::without(without.iter().copied());
            let sink = DirSink::options().fast_paths(paths).durable(true).create(dir.path());
            let sink = sink.unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    Sandbox::Require.confine(&sink, &[], None).unwrap();
                    for content in [&b"one"[..], b"two, in its place"] {
                        let mut file = sink.open(&Connection::new(1)).unwrap();
                        file.write(content).unwrap();
                        file.commit().unwrap();
                    }
                    sink.open(&Connection::new(2)).unwrap().abort().unwrap();
                });
            });
            assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), b"two, in its place");
            assert_eq!(fs::read(dir.path().join("2.file")).unwrap(), b"ERROR");
        }
    }

    #[test]
    fn denies_creating_and_repurposing_sockets() {
        // The protocol number of MPTCP, which behaves like TCP for programs but is not covered by
        // Landlock.
        let mptcp = Some(Protocol::from(262));
        let tcp = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let (unbound, unconnected) = (tcp(), tcp());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().into();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _datagram = UnixDatagram::bind(dir.path().join("datagram")).unwrap();
        let received = dir.path().join("received");
        confined(&received, |_| {
            assert!(denied(Socket::new(Domain::IPV4, Type::STREAM, mptcp)), "MPTCP");
            assert!(denied(Socket::new(Domain::IPV6, Type::STREAM, None)), "TCP");
            assert!(denied(Socket::new(Domain::IPV4, Type::RAW, None)), "raw");
            assert!(denied(unbound.listen(1)), "listen without bind");
            assert!(denied(
                unbound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into())
            ));
            assert!(denied(unconnected.connect(&address)), "connect");
            assert!(denied(UdpSocket::bind("127.0.0.1:0")), "UDP");
            assert!(denied(UnixStream::connect(&path)), "UNIX stream");
            assert!(denied(UnixListener::bind(received.join("socket"))), "UNIX listener");
            assert!(denied(UnixDatagram::unbound()), "UNIX datagram");
            assert!(denied(UnixStream::pair()), "UNIX pair");
        });
    }

    #[test]
    fn denies_changing_permissions_and_owners() {
        let outside = tempfile::NamedTempFile::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        confined(dir.path(), |_| {
            let mode = Permissions::from_mode(0o777);
            assert!(denied(fs::set_permissions(outside.path(), mode)), "chmod");
            assert!(denied(std::os::unix::fs::chown(outside.path(), Some(1), None)), "chown");
            let times = rustix::fs::utimensat(
                rustix::fs::CWD,
                outside.path(),
                &rustix::fs::Timestamps {
                    last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
                    last_modification: rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 },
                },
                rustix::fs::AtFlags::empty(),
            );
            assert!(denied(times.map_err(Into::into)), "times");
            let attribute = rustix::fs::setxattr(
                outside.path(),
                "user.accio",
                b"x",
                rustix::fs::XattrFlags::empty(),
            );
            assert!(denied(attribute.map_err(Into::into)), "attributes");
        });
        assert_eq!(outside.as_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn denies_signalling_and_creating_processes() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let parent = rustix::process::getppid().unwrap();
        let dir = tempfile::tempdir().unwrap();
        confined(dir.path(), |_| {
            for pid in [pid, parent] {
                let killed = rustix::process::kill_process(pid, Signal::CONT);
                assert!(denied(killed.map_err(Into::into)), "{pid:?}");
            }
            let group = rustix::process::kill_process_group(pid, Signal::CONT);
            assert!(denied(group.map_err(Into::into)), "a group");
            assert!(denied(Command::new("sleep").arg("0").spawn()), "a process");
        });
        assert!(child.try_wait().unwrap().is_none(), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Landlock denies signals as well, but then also those to the helper of `--on-commit`.
    #[test]
    fn allows_signals_only_to_the_helpers_group() {
        use std::os::unix::process::CommandExt;
        let start = || Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let (mut helper, mut other) = (start(), start());
        let (group, stranger) = (Pid::from_child(&helper), Pid::from_child(&other));
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                Sandbox::Require.confine(&sink, &[], Some(group.as_raw_nonzero().get())).unwrap();
                let kill = |pid| {
                    rustix::process::kill_process_group(pid, Signal::TERM).map_err(Into::into)
                };
                assert!(denied(kill(stranger)));
                kill(group).unwrap();
            });
        });
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&helper.wait().unwrap()),
            Some(15)
        );
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn denies_writing_below_the_journals_directory() {
        let outside = tempfile::tempdir().unwrap();
        let journal = outside.path().join("journal");
        fs::create_dir(outside.path().join("below")).unwrap();
        let other = outside.path().join("below/other");
        fs::write(&other, "").unwrap();
        // A server opens its journal before it is sandboxed.
        let mut open = File::options().append(true).create(true).open(&journal).unwrap();
        confined(&outside.path().join("received"), |_| {
            assert!(denied(File::options().append(true).open(&other)), "append");
            assert!(denied(File::create(outside.path().join("new"))), "create");
            assert!(denied(File::options().append(true).open(&journal)), "the journal itself");
            open.write_all(b"line\n").unwrap();
        });
        assert_eq!(fs::read(&journal).unwrap(), b"line\n");
    }
}
