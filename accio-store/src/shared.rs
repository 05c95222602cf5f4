//! State shared by a sink and its files: the store, its capabilities, the memory budget, shutdown.

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::watch;

use crate::memory_budget::Budget;

/// Time limit for aborting an upload and writing its marker while the server serves.
pub(crate) const CLEANUP: Duration = Duration::from_secs(60);

/// Time limit for the same while the server stops.
pub(crate) const LAST_CLEANUP: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) capabilities: Capabilities,
    /// The store's address without a password.
    pub(crate) address: String,
    /// `PREFIX/NODE`.
    pub(crate) root: Path,
    pub(crate) node: String,
    /// Identifies this run of this receiver in the notes of its objects.
    pub(crate) token: String,
    pub(crate) budget: Arc<Budget>,
    pub(crate) closing: watch::Sender<bool>,
}

/// Location of a receiver's objects.
#[derive(Debug)]
pub(crate) struct Location {
    /// The address of the store, without a password.
    pub(crate) address: String,
    /// `PREFIX/NODE`.
    pub(crate) root: Path,
    pub(crate) node: String,
}

/// Capabilities of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capabilities {
    /// Whether the store honours conditional puts.
    pub(crate) conditional: bool,
    /// Whether it stores metadata with an object.
    pub(crate) notes: bool,
    /// Whether it supports multipart uploads.
    pub(crate) multipart: bool,
    /// Whether it keeps the parts of an unfinished upload when another object is put under its
    /// name.
    pub(crate) parts_outlive_puts: bool,
}

impl Shared {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        capabilities: Capabilities,
        location: Location,
        memory: usize,
    ) -> Self {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let Location { address, root, node } = location;
        Shared {
            store,
            capabilities,
            address,
            root,
            node,
            token: format!("{random:016x}"),
            budget: Budget::new(memory),
            closing: watch::Sender::new(false),
        }
    }

    /// Ends all waits for memory and for the store, so that unfinished uploads fail.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
        self.budget.close();
    }

    pub(crate) fn path(&self, id: u64) -> Path {
        self.root.clone().join(format!("{id}.file"))
    }

    /// Waits for the store, unless the server stops.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut closing = self.closing.subscribe();
        let closed = pin!(closing.wait_for(|closing| *closing));
        match select(pin!(work), closed).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(stopping()),
        }
    }

    /// Waits for the store to clean up, for a limited time even while the server stops.
    pub(crate) async fn tidy<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut closing = self.closing.subscribe();
        let limit = pin!(async {
            let closed = closing.wait_for(|closing| *closing);
            let _ = tokio::time::timeout(CLEANUP - LAST_CLEANUP, closed).await;
            tokio::time::sleep(LAST_CLEANUP).await;
        });
        match select(pin!(work), limit).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the store does not answer"))
            }
        }
    }
}

pub(crate) fn stopping() -> io::Error {
    io::Error::other("the server is stopping")
}

/// Formats a store's error on one line.
pub(crate) fn store_error(error: &object_store::Error) -> io::Error {
    let text: String = error.to_string().chars().take(500).collect();
    io::Error::other(text.replace(char::is_control, " "))
}
