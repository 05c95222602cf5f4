//! File systems that lack certain calls or ignore them: on each of them the server either keeps its
//! promises or refuses to start. These tests need root and the file systems' tools, so they are
//! ignored by default: `cargo test -p accio-server --test program file_systems -- --ignored
//! --nocapture`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use accio_harness::process::{AtDrop, Input, NO_OWNER, Process};
use accio_harness::{payload, tools};

use super::harness::{BOUND, Server, command, connect, free_port, program, run, until, upload};

const SOON: Duration = Duration::from_secs(5);

/// A file system and the shell commands that mount it on `$ROOT/mount`; `$ROOT` is a fresh
/// directory.
struct FileSystem {
    name: &'static str,
    /// Skipped if one of these programs is missing.
    tools: &'static [&'static str],
    mount: &'static str,
}

const FILE_SYSTEMS: &[FileSystem] = &[
    FileSystem {
        name: "ext4",
        tools: &["mkfs.ext4"],
        mount: "truncate -s 64M image && mkfs.ext4 -q image && mount -o loop image mount",
    },
    FileSystem { name: "tmpfs", tools: &[], mount: "mount -t tmpfs tmpfs mount" },
    FileSystem {
        name: "overlayfs",
        tools: &[],
        mount: "mkdir base && mount -t tmpfs tmpfs base && mkdir base/lower base/upper base/work \
                && mount -t overlay overlay -o \
                lowerdir=base/lower,upperdir=base/upper,workdir=base/work mount",
    },
    FileSystem { name: "bindfs", tools: &["bindfs"], mount: "mkdir source && bindfs source mount" },
    FileSystem {
        name: "ntfs-3g",
        tools: &["ntfs-3g", "mkfs.ntfs"],
        mount: "truncate -s 64M image && mkfs.ntfs -q -F image && ntfs-3g image mount",
    },
    FileSystem {
        name: "exfat-fuse",
        tools: &["mount.exfat-fuse", "mkfs.exfat"],
        mount: "truncate -s 64M image && mkfs.exfat image \
                && losetup -f --show image >device && mount.exfat-fuse $(cat device) mount",
    },
    FileSystem {
        name: "rclone mount",
        tools: &["rclone"],
        mount: "mkdir source && rclone mount source mount --daemon --dir-cache-time 0s",
    },
    FileSystem {
        name: "rclone mount, cached",
        tools: &["rclone"],
        mount: "mkdir source && rclone mount source mount --daemon --vfs-cache-mode full \
                --cache-dir cache",
    },
];

struct Mounted {
    root: tempfile::TempDir,
}

impl Mounted {
    fn new(kind: &FileSystem) -> Result<Self, String> {
        if let Some(tool) = kind.tools.iter().find(|tool| tools::find(tool).is_none()) {
            return Err(format!("{tool} is not installed"));
        }
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mount")).unwrap();
        // When the process has ended, its group is killed. The daemon must not be in it.
        let mut shell = command("setsid");
        shell.args(["--wait", "sh", "-c", kind.mount]).current_dir(root.path());
        // A pipe instead of a file would stay open as long as the mount daemon runs.
        let path = root.path().join("log");
        shell.stdout(fs::File::create(&path).unwrap());
        let mut shell = Process::spawn_logged(shell, Some(&path), AtDrop::Kill).unwrap();
        let mounted = Mounted { root };
        shell.finish(BOUND).map_err(|why| format!("cannot be mounted: {why}"))?;
        let mount = mounted.root.path().join("mount");
        until("the mount", || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            mounts.contains(mount.to_str().unwrap())
        });
        Ok(mounted)
    }

    /// Returns a directory on this file system that no server has used yet.
    fn directory(&self, name: &str) -> PathBuf {
        self.root.path().join("mount").join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for place in ["mount", "base"] {
            let place = self.root.path().join(place);
            let end = Instant::now() + BOUND;
            let unmount = || {
                let mut command = command("umount");
                command.arg(&place);
                run(command)
            };
            let is_mounted = || {
                let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
                mounts.contains(place.to_str().unwrap_or_default())
            };
            while is_mounted() && Instant::now() < end {
                let _ = unmount();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        if let Ok(device) = fs::read_to_string(self.root.path().join("device")) {
            let mut command = command("losetup");
            command.args(["-d", device.trim()]);
            let _ = run(command);
        }
    }
}

/// Starts a server on `directory`, or returns the error with which it exits.
fn start(directory: &Path, flags: &[&str]) -> Result<Server, String> {
    let command = || {
        let mut command = program();
        command.arg(free_port().to_string()).arg(directory).args(["--bind", "127.0.0.1"]);
        command.args(["--timeout", "0.5"]).args(flags);
        command
    };
    // Runs the start twice, because the first run cannot be ended if it listens.
    let mut trial = Process::spawn(command(), NO_OWNER, Input::Null).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    if !trial.has_ended().unwrap() {
        trial.stop().unwrap();
        return Ok(Server::spawn(command()));
    }
    trial.wait(BOUND).unwrap();
    Err(trial.stderr().text().trim().to_owned())
}

/// Returns the content of an upload that takes several reads.
fn content() -> Vec<u8> {
    payload::bytes(1, 3 << 20)
}

fn read(directory: &Path, id: u64) -> Vec<u8> {
    fs::read(directory.join(format!("{id}.file"))).unwrap_or_default()
}

/// Waits for a file, because some file systems show new files late.
fn expect(directory: &Path, id: u64, content: &[u8]) {
    until(&format!("{id}.file in {directory:?}"), || read(directory, id) == content);
}

/// Fills one cell of the table: `yes` if the flag does what it promises, or `refused`.
fn cell(directory: &Path, flags: &[&str], check: impl FnOnce(&Server)) -> Result<(), String> {
    let server = start(directory, flags)?;
    check(&server);
    server.stop(SOON);
    let names: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.to_str().unwrap().ends_with(".file")), "{names:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and file systems to mount"]
fn works_on_each_file_system_or_refuses_it() {
    let mut table = String::new();
    for kind in FILE_SYSTEMS {
        let mounted = match Mounted::new(kind) {
            Ok(mounted) => mounted,
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", kind.name);
                continue;
            }
        };
        let mut row = vec![kind.name.to_owned()];
        let mut add = |flag: &str, result: Result<(), String>| {
            row.push(match result {
                Ok(()) => "yes".to_owned(),
                Err(line) => {
                    let _ = writeln!(std::io::stderr(), "{}: {flag}: {line}", kind.name);
                    let last = line.lines().last().unwrap_or_default();
                    assert!(last.starts_with("ERROR: "), "{line}");
                    assert!(last.contains(flag) && last.contains("the file system is"), "{line}");
                    "refused".to_owned()
                }
            });
        };
        let directory = mounted.directory("replace");
        let replaced = cell(&directory, &[], |server| {
            upload(server.address(), &content()).unwrap();
            expect(&directory, 1, &content());
            let silent = connect(server.address()).unwrap();
            expect(&directory, 2, b"ERROR");
            drop(silent);
        });
        let again = cell(&directory, &[], |server| {
            upload(server.address(), b"the second run").unwrap();
            expect(&directory, 1, b"the second run");
        });
        add("", replaced.clone().map(drop));
        add("", replaced);
        add("", again);
        let directory = mounted.directory("keep");
        add(
            "--existing",
            cell(&directory, &["--existing", "keep"], |server| {
                upload(server.address(), b"the first").unwrap();
                expect(&directory, 1, b"the first");
                fs::write(directory.join("2.file"), "another's").unwrap();
                upload(server.address(), b"the second").unwrap_err();
                upload(server.address(), b"the third").unwrap();
                expect(&directory, 2, b"another's");
                expect(&directory, 3, b"the third");
            }),
        );
        let directory = mounted.directory("durable");
        add(
            "--durable",
            cell(&directory, &["--durable"], |server| {
                upload(server.address(), &content()).unwrap();
                expect(&directory, 1, &content());
            }),
        );
        let directory = mounted.directory("mode");
        add(
            "--mode",
            cell(&directory, &["--mode", "600"], |server| {
                upload(server.address(), b"secret").unwrap();
                expect(&directory, 1, b"secret");
                let mode = fs::metadata(directory.join("1.file")).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }),
        );
        table += &format!("| {} |\n", row.join(" | "));
    }
    let head = "| file system | start, upload | abort | replace | keep | durable | mode |\n";
    let _ = writeln!(std::io::stderr(), "{head}|---|---|---|---|---|---|---|\n{table}");
    assert!(!table.is_empty(), "no file system could be mounted");
}
