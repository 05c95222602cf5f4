//! A local directory as a store.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::local::LocalFileSystem;

use super::Backend;
use crate::orphans::Orphans;
use crate::shared::Capabilities;

/// Opens the file system as a store; `directory` is this receiver's own directory.
pub(crate) fn open(directory: PathBuf) -> Backend {
    Backend {
        store: Arc::new(LocalFileSystem::new()),
        capabilities: Capabilities {
            conditional: true,
            notes: false,
            multipart: true,
            parts_outlive_puts: true,
        },
        orphans: Orphans::Directory(directory),
    }
}
