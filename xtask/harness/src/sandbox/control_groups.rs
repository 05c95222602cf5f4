//! Control groups (cgroup v2), where this process may create them: the kernel then limits the memory
//! and the processes of a check, and kills them all at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use crate::resource_limits::Limits;
use crate::wait::wait_until;

/// The controllers that limit a check.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];
/// Start of the names of the checks' groups; the id of the process that made them follows.
const CHECK: &str = "accio-check-";
/// Time limit for the end of killed processes.
const ENDING: Duration = Duration::from_secs(5);

/// The control group in which those of the checks are created.
#[derive(Debug)]
pub(super) struct ControlGroups {
    /// Its directory.
    base: PathBuf,
    /// Those of [`CONTROLLERS`] that limit the groups in it.
    active: Vec<&'static str>,
    /// The group that this process moved itself to, to be able to activate controllers.
    own: Option<PathBuf>,
}

/// The control group of a check. It is removed, with its processes, when this is dropped.
#[derive(Debug)]
pub(super) struct CheckGroup {
    dir: PathBuf,
}

impl ControlGroups {
    /// Finds out whether the control group of this process is delegated to it.
    pub(super) fn find() -> Option<ControlGroups> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let base = mount_point(&mounts)?.join(path);
        // As root, this process could also write to groups that others manage.
        let is_root = rustix::process::geteuid().is_root();
        if is_root && !path.is_empty() && !is_delegated(&base) {
            return None;
        }
        ControlGroups::in_base(base, path.is_empty()).ok()
    }

    fn in_base(base: PathBuf, is_top: bool) -> io::Result<ControlGroups> {
        remove_abandoned(&base);
        let number = std::process::id();
        let mut own = None;
        if is_top {
            // Only the top may have processes and active controllers.
            let probe = base.join(format!("accio-grade-{number}-probe"));
            fs::create_dir(&probe)?;
            fs::remove_dir(&probe)?;
        } else {
            let dir = base.join(format!("accio-grade-{number}"));
            fs::create_dir(&dir)?;
            if let Err(error) = fs::write(dir.join("cgroup.procs"), "0") {
                let _ = fs::remove_dir(&dir);
                return Err(error);
            }
            own = Some(dir);
        }
        // It fails if the controller belongs to cgroup v1, or if the group has other processes.
        let activate = |name: &&str| {
            fs::write(base.join("cgroup.subtree_control"), format!("+{name}")).is_ok()
        };
        let active = CONTROLLERS.into_iter().filter(activate).collect();
        let mut groups = ControlGroups { base, active, own };
        // A limit that cannot be set must not be a fault of each check.
        if groups.create(usize::MAX, Limits::default()).is_err() {
            groups.active.clear();
        }
        Ok(groups)
    }

    /// Returns whether the groups limit memory or processes.
    pub(super) fn have_limits(&self) -> bool {
        !self.active.is_empty()
    }

    /// Describes it, for reports.
    pub(super) fn describe(&self) -> String {
        match self.active[..] {
            [] => "control group for each check, without limits".to_owned(),
            _ => format!("control group for each check: {}", self.active.join(", ")),
        }
    }

    /// Creates the group of the check `owner`.
    pub(super) fn create(&self, owner: usize, limits: Limits) -> io::Result<CheckGroup> {
        let dir = self.base.join(format!("{CHECK}{}-{owner}", std::process::id()));
        fs::create_dir(&dir)?;
        let group = CheckGroup { dir };
        for controller in &self.active {
            match *controller {
                "memory" => {
                    group.set("memory.max", memory(limits) << 10)?;
                    // Without swap, the file does not exist.
                    let _ = group.set("memory.swap.max", 0);
                    // It kills all, as the limit of the kit does.
                    group.set("memory.oom.group", 1)?;
                }
                // The first process of the namespace is not counted by the other limit.
                _ => group.set("pids.max", limits.processes as u64 + 1)?,
            }
        }
        Ok(group)
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        // A group with active controllers takes no process back, so it stays if there are any.
        if self.active.is_empty() && fs::write(self.base.join("cgroup.procs"), "0").is_ok() {
            let _ = fs::remove_dir(own);
        }
    }
}

impl CheckGroup {
    /// Returns the name, by which a process finds out that it was moved.
    pub(super) fn name(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Moves a process to the group. Its children are born there.
    pub(super) fn add(&self, pid: Pid) -> io::Result<()> {
        self.set("cgroup.procs", u64::from(pid.as_raw_nonzero().get().unsigned_abs()))
    }

    /// Returns the limit for which the kernel killed processes of the group.
    pub(super) fn exceeded(&self, limits: Limits) -> Option<String> {
        let events = fs::read_to_string(self.dir.join("memory.events")).ok()?;
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        let most = memory(limits) >> 10;
        (count != "0").then(|| format!("more than {most} MiB of memory and files"))
    }

    fn set(&self, file: &str, value: u64) -> io::Result<()> {
        fs::write(self.dir.join(file), value.to_string())
    }
}

impl Drop for CheckGroup {
    fn drop(&mut self) {
        let _ = self.set("cgroup.kill", 1);
        // The processes disappear when they have been waited for.
        wait_until(ENDING, || fs::remove_dir(&self.dir).is_ok());
    }
}

/// Removes the groups of tools that were killed, with the processes in them.
fn remove_abandoned(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = name.strip_prefix(CHECK).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(CheckGroup { dir: entry.path() });
        }
    }
}

/// Returns the memory of a group, in KiB. The files of a check are in memory, too.
fn memory(limits: Limits) -> u64 {
    limits.memory + (limits.disk >> 10)
}

/// Waits until this process has been moved to the group `name`.
pub(super) fn wait_for(name: &str) -> io::Result<()> {
    let is_there = || {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        groups.lines().any(|line| line.starts_with("0::") && line.ends_with(name))
    };
    match wait_until(ENDING, is_there) {
        true => Ok(()),
        false => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Returns where cgroup v2 is mounted, given the contents of `/proc/self/mountinfo`.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
    let mut fields = line.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    // Otherwise the paths of groups begin elsewhere.
    (root == "/").then(|| PathBuf::from(point))
}

/// Returns whether a manager such as systemd has delegated the group.
fn is_delegated(dir: &Path) -> bool {
    let has = |name: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(dir, name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    };
    has("trusted.delegate") || has("user.delegate")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_of_version_2() {
        let mounts = "24 1 0:21 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      25 1 0:22 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("25 1 0:22 /a /mnt rw - cgroup2 cgroup2 rw\n"), None);
        assert_eq!(mount_point("24 1 0:21 / /sys rw - sysfs sysfs rw\n"), None);
    }
}
