//! Connections that end without a number.

use std::fmt;

use crate::server::connection::Unnumbered;

/// A connection that ends without a number: it was refused, or a proxy has checked the server.
/// Dropping it has the same effect as [`close`](Refused::close), except that the check of a proxy
/// fails.
#[must_use]
pub struct Refused(Unnumbered);

impl Refused {
    pub(super) fn new(unnumbered: Unnumbered) -> Self {
        Refused(unnumbered)
    }

    /// Ends the connection: with a reset, or with FIN after the check of a proxy.
    pub fn close(self) {
        self.0.close();
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").finish_non_exhaustive()
    }
}
