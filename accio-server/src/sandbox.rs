//! The Landlock sandbox: once the server listens, it loses access to all files except its folder
//! and its journal, and the rights to connect, to run programs and to gain privileges.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use accio_cli::Failure;
use clap::ValueEnum;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, make_bitflags,
};

/// How strictly the sandbox is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sandbox {
    /// Fail if the kernel does not support it
    Require,
    /// Use what the kernel supports
    Try,
    /// Do not sandbox
    Off,
}

impl Sandbox {
    /// Confines this thread, and those it starts later, to the folder open as `dir` and to creating
    /// and writing files in the folder open as `journal`, and reading those below `readable`.
    pub(crate) fn confine(
        self,
        dir: impl AsFd,
        journal: Option<BorrowedFd<'_>>,
        readable: &[OwnedFd],
    ) -> Result<(), Failure> {
        let required = match self {
            Sandbox::Off => return Ok(()),
            Sandbox::Try => CompatLevel::BestEffort,
            Sandbox::Require => CompatLevel::HardRequirement,
        };
        let status = restrict(required, dir, journal, readable).map_err(|error| {
            Failure::new("cannot sandbox the server (--sandbox try continues without)", error)
        })?;
        match status {
            RulesetStatus::FullyEnforced => log::info!("sandboxed"),
            RulesetStatus::PartiallyEnforced => {
                log::info!("sandboxed as far as this kernel supports it");
            }
            RulesetStatus::NotEnforced => log::info!("not sandboxed: the kernel has no Landlock"),
        }
        Ok(())
    }
}

/// The rights in the folder: unnamed or hidden files are linked or renamed to `N.file`.
const IN_FOLDER: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{WriteFile | MakeReg | RemoveFile | Truncate});

/// The rights in the journal's folder: the file is reopened after rotation has moved it, and its
/// last byte is read.
const AT_JOURNAL: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | MakeReg});

fn restrict(
    required: CompatLevel,
    dir: impl AsFd,
    journal: Option<BorrowedFd<'_>>,
    readable: &[OwnedFd],
) -> Result<RulesetStatus, RulesetError> {
    let status = Ruleset::default()
        // ABI 1 has all rights that protect files; later versions add to them.
        .set_compatibility(required)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V5))?
        .create()?
        .add_rule(PathBeneath::new(dir, IN_FOLDER))?
        .add_rules(journal.map(|dir| Ok::<_, RulesetError>(PathBeneath::new(dir, AT_JOURNAL))))?
        .add_rules(
            readable
                .iter()
                .map(|dir| Ok::<_, RulesetError>(PathBeneath::new(dir, AccessFs::ReadFile))),
        )?
        .restrict_self()?;
    Ok(status.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::process::Command;
    use std::thread;

    use accio_proto::{DirSink, FileSink, SinkFile};
    use landlock::{CompatLevel, RulesetStatus};

    use super::*;

    /// Runs `attempt` in a thread of its own that is confined to `dir`; false if this kernel
    /// cannot confine. A thread confines itself and what it starts, nobody else.
    fn confined(dir: &Path, attempt: impl FnOnce(&DirSink) + Send) -> bool {
        let sink = DirSink::create(dir).unwrap();
        let folder: OwnedFd = File::open(dir).unwrap().into();
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let status = restrict(CompatLevel::BestEffort, folder, None, &[]).unwrap();
                if status == RulesetStatus::NotEnforced {
                    let _ = writeln!(std::io::stderr(), "skipped: the kernel has no Landlock");
                    return false;
                }
                attempt(&sink);
                true
            });
            thread.join().unwrap()
        })
    }

    fn denied<T>(result: std::io::Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn nothing_outside_the_folder_can_be_touched() {
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let dir = outside.path().join("received");
        confined(&dir, |_| {
            assert!(denied(File::open(&secret)), "read");
            assert!(denied(File::options().append(true).open(&secret)), "write");
            assert!(denied(File::create(outside.path().join("new"))), "create");
            assert!(denied(fs::remove_file(&secret)), "remove");
            assert!(denied(fs::create_dir(outside.path().join("sub"))), "make a folder");
            assert!(denied(fs::read_dir(outside.path())), "list");
            assert!(denied(fs::rename(&secret, dir.join("1.file"))), "move in");
            assert!(denied(File::open("/etc/passwd")), "read the system's files");
        });
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
    }

    #[test]
    fn what_was_received_cannot_be_read_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("9.file"), "another's").unwrap();
        confined(dir.path(), |_| {
            assert!(denied(File::open(dir.path().join("9.file"))), "read in the folder");
            assert!(denied(fs::read_dir(dir.path())), "list the folder");
        });
    }

    #[test]
    fn no_program_can_be_run() {
        let dir = tempfile::tempdir().unwrap();
        confined(dir.path(), |_| {
            let own = std::env::current_exe().unwrap();
            assert!(denied(Command::new(own).arg("--list").output()), "run a program");
            assert!(denied(Command::new("/bin/sh").args(["-c", "true"]).output()), "run a shell");
        });
    }

    #[test]
    fn nobody_can_be_connected_to_but_who_connected_is_served() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        confined(dir.path(), |_| {
            match TcpStream::connect(address) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
                // Landlock knows of networks since Linux 6.7.
                Ok(_) => {
                    let _ = writeln!(std::io::stderr(), "skipped: Landlock without networks");
                }
            }
        });
        let client = thread::spawn(move || TcpStream::connect(address).map(drop));
        confined(dir.path(), |_| assert!(listener.accept().is_ok(), "accept"));
        client.join().unwrap().ok();
    }

    #[test]
    fn the_folder_works_in_every_way_to_make_a_file() {
        use accio_proto::{FastPath, FastPaths};
        for without in [&[][..], &[FastPath::EmptyPath], &[FastPath::Tmpfile]] {
            let dir = tempfile::tempdir().unwrap();
            let paths = FastPaths::without(without.iter().copied());
            let sink = DirSink::options().fast_paths(paths).durable(true).create(dir.path());
            let sink = sink.unwrap();
            let folder: OwnedFd = File::open(dir.path()).unwrap().into();
            thread::scope(|scope| {
                scope.spawn(|| {
                    restrict(CompatLevel::BestEffort, folder, None, &[]).unwrap();
                    for content in [&b"one"[..], b"two, in its place"] {
                        let mut file = sink.open(1).unwrap();
                        file.write(content).unwrap();
                        file.commit().unwrap();
                    }
                    sink.open(2).unwrap().abort().unwrap();
                });
            });
            assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), b"two, in its place");
            assert_eq!(fs::read(dir.path().join("2.file")).unwrap(), b"ERROR");
        }
    }
}
