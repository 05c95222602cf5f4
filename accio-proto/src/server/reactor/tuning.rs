//! Bounds of the reactor's threads and queues, each with its reason.

use std::time::Duration;

/// Most workers that are started because others are held up in the kernel (64). Far more than disks
/// serve in parallel; each costs a pipe and 64 KiB.
pub(super) const MAX_BLOCKED_WORKERS: usize = 64;

/// Most workers that may be within a call that opens or commits a file (32); the rest of
/// [`MAX_BLOCKED_WORKERS`] keeps moving content into files that are open.
pub(super) const MAX_OPENING_WORKERS: usize = MAX_BLOCKED_WORKERS / 2;

/// How long a worker stays idle that was started for one held up (seconds: 1).
pub(super) const SPARE_WORKER_STAYS: Duration = Duration::from_secs(1);

/// The largest file that a worker commits itself (1 MiB). Handing a file over costs some 10 µs:
/// much for a small upload, nothing for a larger one, whose preallocated blocks must be trimmed.
pub(super) const INLINE_COMMIT: u64 = 1 << 20;

/// Most files committed together (64): beyond that a group gains little and delays its first file.
pub(super) const COMMIT_GROUP: usize = 64;

/// Threads that commit groups (2): one group's files are written back while the other's directory
/// is. More only make the groups smaller.
pub(super) const GROUP_THREADS: usize = 2;

/// Threads that commit files without groups (8): large files, and whatever the workers are too busy
/// to commit.
pub(super) const COMMIT_THREADS: usize = 8;

/// Threads that leave error markers (4): a marker is a few short calls.
pub(super) const MARKER_THREADS: usize = 4;

/// How long the error markers and reports of a stopped server may take (milliseconds: 700). Within a
/// second the process must have ended, the program's own records included.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(700);

/// How long a stopped server waits for its threads once all is reported (milliseconds: 150).
pub(super) const STOP_GRACE: Duration = Duration::from_millis(150);
