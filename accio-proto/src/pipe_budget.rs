//! A limit on the pipes of a server, which leaves enough descriptors for sockets and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of pipes that the copiers of a server may still create.
#[derive(Debug)]
pub(crate) struct PipeBudget(AtomicUsize);

/// A pipe of the budget, which counts until this is dropped.
#[derive(Debug)]
pub(crate) struct PipePlace(Arc<PipeBudget>);

impl PipeBudget {
    pub(crate) fn new(pipes: usize) -> Arc<Self> {
        Arc::new(PipeBudget(AtomicUsize::new(pipes)))
    }

    /// Takes a place for a pipe, if one is left.
    pub(crate) fn take(self: &Arc<Self>) -> Option<PipePlace> {
        let less = |left: usize| left.checked_sub(1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok().then(|| PipePlace(Arc::clone(self)))
    }
}

impl Drop for PipePlace {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_place_is_free_again() {
        let budget = PipeBudget::new(2);
        let (first, second) = (budget.take(), budget.take());
        assert!(first.is_some() && second.is_some() && budget.take().is_none());
        drop(first);
        assert!(budget.take().is_some());
        assert!(PipeBudget::new(0).take().is_none());
    }
}
