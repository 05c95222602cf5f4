//! Limits of the reactor's threads and queues, each with its reason.

use std::time::Duration;

/// Maximum number of workers started because others are blocked in the kernel (64). Disks serve far
/// fewer requests in parallel; each worker costs a pipe and 64 KiB.
pub(super) const MAX_BLOCKED_WORKERS: usize = 64;

/// Maximum number of connections that the front thread accepts from a socket at a tick (64). With
/// thousands of clients, open connections that wait for a worker only take memory and cache.
pub(super) const FRONT_BATCH: usize = 64;

/// Maximum number of workers inside a call that opens or commits a file (32). The rest of
/// [`MAX_BLOCKED_WORKERS`] continues to move content into open files.
pub(super) const MAX_OPENING_WORKERS: usize = MAX_BLOCKED_WORKERS / 2;

/// How long a worker that was started for a blocked one stays idle before it ends (seconds: 1).
pub(super) const SPARE_WORKER_STAYS: Duration = Duration::from_secs(1);

/// Maximum size of a file that a worker commits itself (1 MiB). Queueing a file costs about 10 µs:
/// much for a small upload, but nothing for a larger one, whose preallocated blocks must be
/// trimmed.
pub(super) const INLINE_COMMIT: u64 = 1 << 20;

/// Maximum number of files committed together (16). The file system flushes the cache of the disk for
/// each file but the first, so a larger group takes longer by as much as it saves elsewhere.
pub(super) const COMMIT_GROUP: usize = 16;

/// Threads that commit groups (4): the disk merges flushes that are requested at the same time. With
/// 128 clients, two threads with groups of up to 64 files stored a tenth less, and eight threads no
/// more.
pub(super) const GROUP_THREADS: usize = 4;

/// Threads that commit files one by one (8): large files, and small ones that the workers are too
/// busy to commit.
pub(super) const COMMIT_THREADS: usize = 8;

/// Number of discarded files that may be open without counting against the connection limit (16).
/// It is part of [`RESERVED_DESCRIPTORS`](crate::tuning::server::RESERVED_DESCRIPTORS). Freeing one
/// file may take seconds, and each file that waits for it keeps its descriptor.
pub(super) const FREE_DISCARDS: usize = 16;

/// Threads that write error markers (4): a marker needs only a few short calls.
pub(super) const MARKER_THREADS: usize = 4;

/// Number of additional threads that write error markers once those of a stopping server may be
/// stuck (16). All need the lock of the same directory: with a thread for each of 500 connections, the
/// threads delayed each other by more than half a second.
pub(super) const STOP_MARKER_THREADS: usize = 16;

/// How long error markers and reports of a stopping server may take (milliseconds: 700). The
/// process must end within a second, including the program's own records.
pub(super) const STOP_LIMIT: Duration = Duration::from_millis(700);

/// How long a stopping server waits for the sink to prepare for that (milliseconds: 100). A sink should
/// need no time; one that waits for a disk must not delay the markers for longer.
pub(super) const STOP_NOTICE: Duration = Duration::from_millis(100);

/// How long a stopping server waits for its threads once everything is reported (milliseconds:
/// 150).
pub(super) const STOP_GRACE: Duration = Duration::from_millis(150);
