//! Unfinished uploads of an earlier run of this receiver, left behind when it was killed.

mod directory;
#[cfg(feature = "network")]
mod s3;

use std::io;
use std::path::PathBuf;

use object_store::path::Path;

/// The location of unfinished uploads of an earlier run.
#[derive(Debug)]
pub(crate) enum Orphans {
    Directory(PathBuf),
    #[cfg(feature = "network")]
    S3(object_store::aws::AmazonS3),
    /// None: the store removes them by itself, or its operator configures it to.
    #[cfg(feature = "network")]
    Nowhere,
}

impl Orphans {
    /// Removes the unfinished uploads under `root`; returns their number.
    pub(crate) async fn remove(&self, root: &Path) -> io::Result<usize> {
        // Only S3 needs the root; a directory already belongs to this receiver.
        let _ = root;
        match self {
            Orphans::Directory(directory) => directory::reap(directory),
            #[cfg(feature = "network")]
            Orphans::S3(s3) => s3::reap(s3, root).await,
            #[cfg(feature = "network")]
            Orphans::Nowhere => Ok(0),
        }
    }
}
