//! The stores behind each kind of address.

pub(crate) mod folder;
#[cfg(feature = "network")]
pub(crate) mod network;

use std::sync::Arc;

use object_store::ObjectStore;

use crate::orphans::Orphans;
use crate::shared::Traits;

/// A store with what is known of its kind.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// As documented for its kind; a compatible store may do less.
    pub(crate) traits: Traits,
    pub(crate) orphans: Orphans,
}
