//! The notification that a peer waits for.

use std::fmt;

/// Notifies one peer of the result of its upload when dropped: with FIN for a complete file, with a
/// reset otherwise. Until then the connection keeps its place and its descriptor.
#[must_use = "dropping it notifies the peer"]
pub struct Acknowledgement(Option<Box<dyn FnOnce() + Send>>);

impl Acknowledgement {
    pub(super) fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Acknowledgement(Some(Box::new(release)))
    }

    /// Notifies the peer, like dropping the value.
    pub fn send(self) {}
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl fmt::Debug for Acknowledgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acknowledgement").finish()
    }
}
