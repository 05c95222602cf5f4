//! The spare marker, for when no file can be created.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Number of names after which a spare marker is replaced (30,000). ext4 allows 65,000 names per
/// file; the margin is for a disk that is too full for a replacement.
const RENEW_AFTER: u32 = 30_000;

/// An unnamed file that contains the marker, already written to the disk.
///
/// If no block, inode or descriptor is left for a new file, failed connections share this one:
/// another name for it needs none of these. So do connections that fail while another thread creates
/// a file for a marker, and all that fail once the server stops: a stop that ends a thousand of them
/// has no time for a thousand files, and none to wait for a single one on a busy disk. In a
/// durable directory every marker is a name of this file, because its content is on the disk
/// already, so the peer need not wait for that.
#[derive(Debug, Default)]
pub(super) struct Spare {
    current: Mutex<Option<Arc<SharedFile>>>,
    /// Whether the current file has many names and needs a replacement.
    pub(super) is_worn: AtomicBool,
    /// Held by the thread that creates a file for a marker.
    creating: Mutex<()>,
    /// Whether the server stops: creating a file can then take longer than the stop may.
    is_stopping: AtomicBool,
    #[cfg(test)]
    pub(super) limits: Limits,
}

/// Limits that tests can lower, because no file system has limits this low.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) renew_after: AtomicU32,
    /// The limit of the file system.
    pub(super) max_names: AtomicU32,
}

#[cfg(test)]
impl Default for Limits {
    fn default() -> Self {
        let (renew_after, max_names) = (AtomicU32::new(RENEW_AFTER), AtomicU32::new(u32::MAX));
        Limits { renew_after, max_names }
    }
}

#[derive(Debug)]
pub(super) struct SharedFile {
    pub(super) fd: OwnedFd,
    /// The number of its names.
    pub(super) names: AtomicU32,
}

impl Spare {
    /// Makes this file the shared one from now on.
    pub(super) fn set(&self, fd: OwnedFd) {
        *self.lock() = Some(Arc::new(SharedFile { fd, names: AtomicU32::new(0) }));
        self.is_worn.store(false, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<Arc<SharedFile>> {
        self.lock().clone()
    }

    /// Lets all further markers be names of this file, as long as that is possible.
    pub(super) fn stop_creating(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Returns the turn to create a file for a marker, unless another thread has it or the server
    /// stops.
    pub(super) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        if self.is_stopping.load(Ordering::Relaxed) {
            return None;
        }
        match self.creating.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn renew_after(&self) -> u32 {
        #[cfg(test)]
        return self.limits.renew_after.load(Ordering::Relaxed);
        #[cfg(not(test))]
        RENEW_AFTER
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<SharedFile>>> {
        // Each change is one assignment, so the state is consistent even if another thread panics.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
