//! The check whether the file system has room for another file.

use crate::sys::file::FreeSpace;

/// Maximum number of inodes kept free in addition to [`min_free`](super::DirOptions::min_free)
/// bytes (1024). The result of the check may be a fifth of a second old, and every connection in
/// service may still need an inode.
const MAX_SPARE_INODES: u64 = 1024;

/// The share of all inodes that is kept free, if that is less: one in 100.
const SPARE_INODES: u64 = 100;

/// Returns whether another connection may be accepted. Bytes alone are not enough: each file, and
/// each error marker, takes an inode.
pub(super) fn has_room(free: FreeSpace, min_free: u64) -> bool {
    let has_inode = free.inodes.is_none_or(|inodes| {
        let spare = if min_free > 0 { inodes.all / SPARE_INODES } else { 0 };
        inodes.free > spare.min(MAX_SPARE_INODES)
    });
    has_inode && free.bytes >= min_free
}

/// Returns whether the number of free inodes can be relied on, given the numbers after a file could
/// be created. `rclone mount` always reports that a thousand million inodes are all in use.
pub(super) fn counts_inodes(after_creation: FreeSpace) -> bool {
    after_creation.inodes.is_none_or(|inodes| inodes.free > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::Inodes;

    #[test]
    fn free_bytes_without_a_free_inode_are_not_room() {
        let free = |bytes, inodes| FreeSpace { bytes, inodes };
        let of = |all| move |free| Some(Inodes { free, all });
        let (few, many) = (of(50), of(1_000_000));
        for (bytes, inodes, min_free, expected) in [
            (1 << 40, few(0), 0, false),
            (1 << 40, few(0), 10 << 20, false),
            (1 << 40, few(1), 10 << 20, true),
            (1 << 40, many(1), 0, true),
            (1 << 40, many(1024), 10 << 20, false),
            (1 << 40, many(1025), 10 << 20, true),
            ((10 << 20) - 1, many(500_000), 10 << 20, false),
            // btrfs and others create inodes on demand, and report none.
            (10 << 20, None, 10 << 20, true),
            (0, None, 1, false),
        ] {
            let space = free(bytes, inodes);
            assert_eq!(has_room(space, min_free), expected, "{space:?}, {min_free}");
        }
    }

    #[test]
    fn a_count_of_no_free_inode_is_ignored_if_a_file_could_be_created() {
        let free = |inodes| FreeSpace { bytes: 1, inodes };
        assert!(!counts_inodes(free(Some(Inodes { free: 0, all: 1_000_000_000 }))));
        assert!(counts_inodes(free(Some(Inodes { free: 1, all: 1_000_000_000 }))));
        assert!(counts_inodes(free(None)));
    }
}
