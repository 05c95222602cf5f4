//! Finds what kind of sandbox this machine permits, and enters the namespaces that all sandboxes
//! are created in.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;

use super::commands::{PROBE, SELF};
use super::{mounts, system_calls};
use crate::{os_error_text, process};

/// First user id of the programs, if so many ids are available: no user has such a high one.
const HIGH: u32 = 1 << 30;
/// First user id in a container, which often has 65,536 of them.
const LOW: u32 = 52_000;
/// Number of user ids below [`LOW`] plus this.
const LOW_COUNT: u32 = 8_000;

/// The kind of sandbox that this machine permits.
#[derive(Debug, Default)]
pub struct Support {
    /// This program, to be run as a helper in front of others.
    own_program: PathBuf,
    /// Why there are no namespaces.
    no_namespaces: Option<String>,
    /// The first user id of the programs and their number; `None` for the user of this process.
    users: Option<(u32, u32)>,
    /// The user of this process, if it is inside a user namespace of its own.
    nested_uid: Option<u32>,
    /// Why system calls are not denied to the programs.
    allows_calls: Option<String>,
}

impl Support {
    /// Enters the namespaces without a trial in another process.
    pub(super) fn untried() -> io::Result<Support> {
        let uid = rustix::process::geteuid();
        enter()?;
        let users = uid.is_root().then_some((HIGH, 1));
        let nested_uid = if uid.is_root() { None } else { Some(uid.as_raw()) };
        let allows_calls = try_to_deny().err();
        Ok(Support {
            own_program: SELF.into(),
            no_namespaces: None,
            users,
            nested_uid,
            allows_calls,
        })
    }

    /// Returns whether programs run in namespaces of their own.
    pub fn has_namespaces(&self) -> bool {
        self.no_namespaces.is_none()
    }

    /// Returns the program to run as a helper in front of others.
    pub(super) fn own_program(&self) -> &Path {
        &self.own_program
    }

    /// Returns the user id for the programs of the check `owner`.
    pub(super) fn uid_of(&self, owner: usize) -> Option<u32> {
        let (first, count) = self.users?;
        Some(first + u32::try_from(owner % count as usize).unwrap_or_default())
    }

    /// Returns the user to become in a nested user namespace.
    pub(super) fn nested_uid(&self) -> Option<u32> {
        self.nested_uid
    }

    /// Returns whether some system calls are denied to the programs.
    pub(super) fn denies_calls(&self) -> bool {
        self.allows_calls.is_none()
    }

    /// Returns the active protections, for reports.
    pub fn protections(&self) -> Vec<String> {
        let mut active = Vec::new();
        match &self.no_namespaces {
            None => active.extend([
                "namespaces: processes, files, network, IPC".to_owned(),
                "system read-only, other files hidden".to_owned(),
                "UNIX sockets with absolute paths hidden".to_owned(),
                "size of the check's directory limited".to_owned(),
            ]),
            Some(why) => active.push(format!("no namespaces ({why})")),
        }
        match (self.users, self.nested_uid) {
            (Some(_), _) => active.push("another user for each check".to_owned()),
            (None, Some(_)) => active.push("user namespace without capabilities".to_owned()),
            (None, None) => active.push("same user".to_owned()),
        }
        active.push("no inherited descriptors, few environment variables".to_owned());
        active.push(match &self.allows_calls {
            None => {
                "system calls denied: io_uring, keyrings, bpf, perf, userfaultfd, kexec".to_owned()
            }
            Some(why) => format!("no system calls denied ({why})"),
        });
        active.push("limits on memory, processes, output, time".to_owned());
        active
    }
}

/// Finds what is possible and enters the namespaces in which sandboxes are created. Call it while
/// this process has one thread.
pub fn prepare() -> Support {
    let (own_program, no_namespaces) = match try_probe() {
        Ok(outcome) => (SELF.into(), outcome.err()),
        // qemu executes the path on its command line instead, which may be relative.
        Err(error) => {
            let why = format!("{SELF}: {}", os_error_text(&error));
            (env::current_exe().unwrap_or_else(|_| SELF.into()), Some(why))
        }
    };
    let mut support = Support { own_program, no_namespaces, ..Support::default() };
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        support.users = users(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default());
    }
    if support.has_namespaces() {
        match enter() {
            Ok(()) if support.users.is_none() => support.nested_uid = Some(uid.as_raw()),
            Ok(()) => {}
            Err(error) => support.no_namespaces = Some(os_error_text(&error)),
        }
    }
    // Not earlier: a process with several threads cannot enter a user namespace.
    support.allows_calls = try_to_deny().err();
    if !support.has_namespaces() {
        // Programs that leave their group then become children of this process.
        process::adopt_orphans();
    }
    support
}

/// Tries a sandbox in another process, because a failed attempt may not be undone. Returns an error
/// if this program cannot execute itself, as it must in any directory.
fn try_probe() -> io::Result<Result<(), String>> {
    let mut command = Command::new(SELF);
    command.arg(PROBE).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = process::plain_output(command.current_dir("/"))?;
    Ok(match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}

/// Tries to deny system calls to a thread, because the kernel or an emulator may refuse filters.
fn try_to_deny() -> Result<(), String> {
    let denied = thread::spawn(system_calls::deny).join();
    denied.unwrap_or_else(|_| Err(io::Error::other("panic"))).map_err(|error| os_error_text(&error))
}

/// Enters a mount namespace and, if this process is not root, a user namespace in which it is.
fn enter() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    } else {
        nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
        map_user(0, uid.as_raw(), gid.as_raw())?;
    }
    mounts::change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    if !uid.is_root() {
        // `ip netns` needs to write there.
        mounts::mount_tmpfs(Path::new("/run"), "size=1m,mode=755")?;
    }
    Ok(())
}

/// Maps the user and group of this process to the ids `inside` of its new user namespace.
pub(super) fn map_user(inside: u32, uid: u32, gid: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{inside} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{inside} {gid} 1"))
}

/// Returns the user ids that the programs may have, given the contents of `/proc/self/uid_map`.
fn users(map: &str) -> Option<(u32, u32)> {
    let ranges: Vec<(u64, u64)> = map
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (first, count) = (fields.next()?, fields.nth(1)?);
            Some((first.parse().ok()?, count.parse().ok()?))
        })
        .collect();
    let has = |uid: u32| {
        ranges.iter().any(|(first, count)| (*first..first + count).contains(&u64::from(uid)))
    };
    let count = 1 << 20;
    if has(HIGH) && has(HIGH + (count << 9)) {
        // Runs at the same time must not share users.
        return Some((HIGH + count * fastrand::u32(0..1 << 9), count));
    }
    (has(LOW) && has(LOW + LOW_COUNT)).then_some((LOW, LOW_COUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_users_that_exist_in_this_namespace() {
        let (first, count) = users("         0          0 4294967295\n").unwrap();
        assert!(first >= HIGH && count == 1 << 20);
        assert_eq!(users("0 100000 65536\n"), Some((LOW, LOW_COUNT)));
        assert_eq!(users("0 1000 1\n"), None);
    }
}
