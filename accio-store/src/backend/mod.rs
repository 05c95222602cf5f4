//! The store behind each kind of address.

pub(crate) mod directory;
#[cfg(feature = "network")]
pub(crate) mod network;

use std::sync::Arc;

use object_store::ObjectStore;

use crate::orphans::Orphans;
use crate::shared::Capabilities;

/// A store with the capabilities of its kind.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The capabilities documented for this kind; a compatible store may have fewer.
    pub(crate) capabilities: Capabilities,
    pub(crate) orphans: Orphans,
}
