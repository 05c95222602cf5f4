//! The name of a file system, for messages.

use std::os::fd::AsFd;

/// Returns the type of the file system that contains a directory, such as `ext4` or `fuse.bindfs`;
/// `None` if the system does not report it.
pub(crate) fn name(dir: impl AsFd) -> Option<String> {
    let device = rustix::fs::fstat(dir).ok()?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    find(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &device)
}

fn find(mounts: &str, device: &str) -> Option<String> {
    // ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [OPTIONAL...] - TYPE SOURCE OPTIONS
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    let kind = line.split_once(" - ")?.1.split(' ').next()?;
    Some(kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_type_after_the_dash() {
        let mounts = "36 35 98:0 /a /mnt rw,noatime master:1 shared:2 - ext4 /dev/root rw\n\
                      40 35 0:51 / /mnt/b rw - fuse.bindfs /mnt/a rw,user_id=0\n";
        assert_eq!(find(mounts, "98:0").as_deref(), Some("ext4"));
        assert_eq!(find(mounts, "0:51").as_deref(), Some("fuse.bindfs"));
        assert_eq!(find(mounts, "0:5"), None);
    }
}
