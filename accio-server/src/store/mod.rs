//! Files kept in an object store: connection N's bytes become the object `PREFIX/NODE/N.file`.
//!
//! An object is absent, complete, empty or `ERROR`. What fits into one part is put at once, at the
//! commit; what is larger is uploaded part by part, which shows nowhere until it is completed.
//! Either way the name is taken by a put that fails when the name is there, so that of two
//! receivers which were given the same name one fails and none overwrites.

mod budget;
mod connect;
mod file;
mod leftovers;
#[cfg(feature = "store")]
mod network;
mod parts;
mod pieces;
mod put;
mod serve;
#[cfg(test)]
mod tests;
#[cfg(feature = "store")]
mod unfinished;

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use accio_proto::{ERROR_MARKER, FileSink};
use futures_util::future::{Either, select};
use object_store::path::Path;
use object_store::{ObjectStore, PutPayload};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use budget::Budget;
use file::StoreFile;
pub(crate) use serve::{StoreFlags, serve};

/// How long putting things right may take while serving: aborting an upload, marking it failed.
const CLEANUP: Duration = Duration::from_secs(60);

/// The same once the server is to stop.
const LAST_CLEANUP: Duration = Duration::from_secs(4);

/// Threads that talk to the store. Sessions have their own; these only move requests.
const THREADS: usize = 2;

/// Keeps files in an object store. Clones keep them in the same.
#[derive(Debug, Clone)]
struct StoreSink {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    runtime: Runtime,
    store: Arc<dyn ObjectStore>,
    traits: Traits,
    /// `PREFIX/NODE`.
    root: Path,
    node: String,
    /// This run of this receiver, told from any other by what its objects carry.
    token: String,
    budget: Arc<Budget>,
    closing: watch::Sender<bool>,
}

/// What a store can do.
#[derive(Debug, Clone, Copy)]
struct Traits {
    /// It refuses to put what is there already, if asked to.
    conditional: bool,
    /// It keeps a note with an object.
    notes: bool,
    /// It takes an object in parts.
    multipart: bool,
    /// Parts of an upload that is not complete stay when its name is put to.
    parts_outlive_puts: bool,
}

impl StoreSink {
    fn new(
        runtime: Runtime,
        store: Arc<dyn ObjectStore>,
        traits: Traits,
        place: (Path, String),
        memory: usize,
    ) -> Self {
        let random = std::hash::RandomState::new().build_hasher().finish();
        let (root, node) = place;
        let shared = Shared {
            runtime,
            store,
            traits,
            root,
            node,
            token: format!("{random:016x}"),
            budget: Budget::new(memory),
            closing: watch::Sender::new(false),
        };
        StoreSink { shared: Arc::new(shared) }
    }

    /// Nobody waits for memory or for the store any longer; what is unfinished fails.
    fn close(&self) {
        self.shared.closing.send_replace(true);
        self.shared.budget.close();
    }
}

impl FileSink for StoreSink {
    type File = StoreFile;

    fn open(&self, id: u64) -> io::Result<StoreFile> {
        Ok(StoreFile::new(&self.shared, id))
    }

    fn mark(&self, id: u64) -> io::Result<()> {
        self.shared.mark(id)
    }

    fn blocks(&self) -> bool {
        true
    }
}

impl Shared {
    fn path(&self, id: u64) -> Path {
        self.root.clone().join(format!("{id}.file"))
    }

    /// Waits for the store, unless the server is to stop.
    fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
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
    fn tidy<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
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

    fn mark(&self, id: u64) -> io::Result<()> {
        self.tidy(self.create(&self.path(id), PutPayload::from_static(ERROR_MARKER), put::ERROR))
    }
}

fn stopping() -> io::Error {
    io::Error::other("the server is stopping")
}

/// What a store said, on one line.
fn told(error: &object_store::Error) -> io::Error {
    let text: String = error.to_string().chars().take(500).collect();
    io::Error::other(text.replace(char::is_control, " "))
}
