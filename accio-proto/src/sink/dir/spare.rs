//! The spare marker, for when no file can be created.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Number of names after which a spare marker is replaced (30,000). ext4 allows 65,000 names per
/// file; the margin is for a disk that is too full for a replacement.
const RENEW_AFTER: u32 = 30_000;

/// Pause after a failed attempt to replace the spare marker (seconds: 1), so that uploads to a full
/// disk do not repeat it each time.
const RETRY: Duration = Duration::from_secs(1);

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
    /// Whether there is no current file, or one that has many names or can get no more: it needs a
    /// replacement.
    pub(super) is_worn: AtomicBool,
    /// When the last attempt to replace the current file failed. Held during an attempt.
    renewal_failed: Mutex<Option<Instant>>,
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
        try_lock(&self.creating)
    }

    /// Calls `renew` if the current file needs a replacement, unless another thread does so at this
    /// moment or an attempt has just failed.
    pub(super) fn renew_if_worn(&self, renew: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if !self.is_worn.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(mut failed) = try_lock(&self.renewal_failed) else { return Ok(()) };
        let is_recent = failed.is_some_and(|failed| failed.elapsed() < RETRY);
        // Another thread may have replaced it in the meantime.
        if is_recent || !self.is_worn.load(Ordering::Relaxed) {
            return Ok(());
        }
        let renewed = renew();
        *failed = renewed.is_err().then(Instant::now);
        renewed
    }

    /// Removes the current file, as if none could be created when the directory was opened.
    #[cfg(all(test, linux_sys))]
    pub(super) fn remove(&self) {
        *self.lock() = None;
        self.is_worn.store(true, Ordering::Relaxed);
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

/// Returns the lock, unless another thread has it.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
