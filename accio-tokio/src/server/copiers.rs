//! Copiers for turns, which run on any thread.

use std::sync::{Mutex, PoisonError};

use accio_proto::Copier;

/// Maximum number of copiers that are kept (16): each has a buffer of 64 KiB and a pipe.
const KEPT: usize = 16;

/// Copiers that no turn uses now.
#[derive(Debug, Default)]
pub(super) struct Copiers(Mutex<Vec<Copier>>);

impl Copiers {
    /// Calls `turn` with a copier, which is not returned after a panic.
    pub(super) fn with<T>(
        &self,
        create: impl FnOnce() -> Copier,
        turn: impl FnOnce(&mut Copier) -> T,
    ) -> T {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut copier = kept.unwrap_or_else(create);
        let result = turn(&mut copier);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(copier);
        }
        result
    }
}
