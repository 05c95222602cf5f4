//! The review of complete files before they are named and confirmed.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use crate::connection::Connection;
use crate::digest::Digest;

/// A complete file that has no name yet, and waits to be accepted or rejected.
///
/// Until then its connection keeps its place, and no time limit of the server applies to it. If the
/// review is dropped without a decision, the file is rejected. If the server stops first, the file is
/// aborted and the decision has no effect.
#[must_use = "dropping it rejects the file"]
#[non_exhaustive]
pub struct Review {
    /// The number of the connection, its addresses, identity and dialect.
    pub connection: Connection,
    /// The size of the file.
    pub bytes: u64,
    /// The digest of the file, if the server computes digests.
    pub digest: Option<Digest>,
    pub(super) source: DescriptorSource,
    pub(super) decide: Option<Decide>,
}

/// Duplicates the descriptor of a file under review.
pub(super) type DescriptorSource = Box<dyn Fn() -> io::Result<Option<OwnedFd>> + Send>;

/// Takes the decision: the reason for a rejected file.
pub(super) type Decide = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Reason of a file whose review was dropped.
const NO_DECISION: &str = "not reviewed";

impl Review {
    /// Returns a duplicate of the file's [descriptor](crate::SinkFile::descriptor), if the sink has
    /// one. Open it again, through `/proc/self/fd`, to read the content from its beginning.
    ///
    /// # Errors
    ///
    /// There is no descriptor left, or the connection has ended because the server stops.
    pub fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        (self.source)()
    }

    /// Keeps the file: it gets its name, and the client is notified.
    pub fn accept(mut self) {
        self.decide(Ok(()));
    }

    /// Rejects the file for a reason, which should be printable text of one line. The file becomes
    /// the error marker and the client is reset.
    pub fn reject(mut self, why: impl Into<String>) {
        self.decide(Err(why.into()));
    }

    fn decide(&mut self, verdict: Result<(), String>) {
        if let Some(decide) = self.decide.take() {
            decide(verdict);
        }
    }
}

impl Drop for Review {
    fn drop(&mut self) {
        self.decide(Err(NO_DECISION.to_owned()));
    }
}

impl fmt::Debug for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Review")
            .field("connection", &self.connection)
            .field("bytes", &self.bytes)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}
