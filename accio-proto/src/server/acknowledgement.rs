//! The answer that a peer waits for.

use std::fmt;

/// Tells one peer the result of its upload when it is dropped: FIN for a complete file, a reset
/// for any other end. Until then the connection keeps its place and its descriptor.
#[must_use = "dropping it tells the peer"]
pub struct Acknowledgement(Option<Box<dyn FnOnce() + Send>>);

impl Acknowledgement {
    pub(super) fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Acknowledgement(Some(Box::new(release)))
    }

    /// Tells the peer, as dropping it does.
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
