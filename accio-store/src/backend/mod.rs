//! The stores behind each kind of address.

pub(crate) mod folder;
#[cfg(feature = "network")]
pub(crate) mod network;

use std::sync::Arc;

use object_store::ObjectStore;

use crate::orphans::Orphans;
use crate::shared::Traits;

/// A store and the capabilities of its kind.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// Capabilities documented for the kind; a compatible store may have fewer.
    pub(crate) traits: Traits,
    pub(crate) orphans: Orphans,
}
