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
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::memory_budget::Budget;

/// How long putting things right may take while serving: aborting an upload, marking it failed.
pub(crate) const CLEANUP: Duration = Duration::from_secs(60);

/// The same once the server is to stop.
pub(crate) const LAST_CLEANUP: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) runtime: Runtime,
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) traits: Traits,
    /// Without a password.
    pub(crate) address: String,
    /// `PREFIX/NODE`.
    pub(crate) root: Path,
    pub(crate) node: String,
    /// This run of this receiver, told from any other by what its objects carry.
    pub(crate) token: String,
    pub(crate) budget: Arc<Budget>,
    pub(crate) closing: watch::Sender<bool>,
}

/// Where a receiver's objects are.
#[derive(Debug)]
pub(crate) struct Place {
    /// The address of the store, without a password.
    pub(crate) address: String,
    /// `PREFIX/NODE`.
    pub(crate) root: Path,
    pub(crate) node: String,
}

/// What a store can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Traits {
    /// It refuses to put what is there already, if asked to.
    pub(crate) conditional: bool,
    /// It keeps a note with an object.
    pub(crate) notes: bool,
    /// It takes an object in parts.
    pub(crate) multipart: bool,
    /// Parts of an upload that is not complete stay when its name is put to.
    pub(crate) parts_outlive_puts: bool,
}

impl Shared {
    pub(crate) fn new(
        runtime: Runtime,
        store: Arc<dyn ObjectStore>,
        traits: Traits,
        place: Place,
        memory: usize,
    ) -> Self {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let Place { address, root, node } = place;
        Shared {
            runtime,
            store,
            traits,
            address,
            root,
            node,
            token: format!("{random:016x}"),
            budget: Budget::new(memory),
            closing: watch::Sender::new(false),
        }
    }

    /// Nobody waits for memory or for the store any longer; what is unfinished fails.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
        self.budget.close();
    }

    pub(crate) fn path(&self, id: u64) -> Path {
        self.root.clone().join(format!("{id}.file"))
    }

    /// Waits for the store, unless the server is to stop.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut closing = self.closing.subscribe();
        self.runtime.block_on(async {
            let closed = pin!(closing.wait_for(|closing| *closing));
            match select(pin!(work), closed).await {
                Either::Left((result, _)) => result,
                Either::Right(_) => Err(stopping()),
            }
        })
    }

    /// Waits for the store to put something right, even when the server is to stop; not for ever.
    pub(crate) fn tidy<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut closing = self.closing.subscribe();
        self.runtime.block_on(async {
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
        })
    }
}

pub(crate) fn stopping() -> io::Error {
    io::Error::other("the server is stopping")
}

/// What a store said, on one line.
pub(crate) fn told(error: &object_store::Error) -> io::Error {
    let text: String = error.to_string().chars().take(500).collect();
    io::Error::other(text.replace(char::is_control, " "))
}
