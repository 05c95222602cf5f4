//! Opens a sink: parses the address, probes the store, and removes orphans of an earlier run.

use std::fmt;
use std::io;
use std::str::FromStr;

use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload,
};
use url::Url;

use crate::backend::{self, Backend};
use crate::blocking::StoreSink;
use crate::part_size::PART;
use crate::program_log as log;
use crate::shared::{Location, Shared, store_error};
use crate::sink::AsyncStoreSink;

/// Number of threads that send requests. Sessions run on their own threads.
const THREADS: usize = 2;

/// Options of a [`StoreSink`].
#[derive(Debug, Clone)]
#[must_use = "nothing is opened until `open` is called"]
pub struct StoreOptions {
    node: NodeName,
    memory: u64,
}

impl StoreOptions {
    /// The default of [`memory`](Self::memory), in bytes.
    pub const DEFAULT_MEMORY: u64 = 512 << 20;

    /// The minimum [`memory`](Self::memory), in bytes: two parts, so that one can be filled while
    /// the other is sent.
    pub const MIN_MEMORY: u64 = 2 * PART as u64;

    /// Starts with the defaults for the receiver called `node`.
    pub fn new(node: NodeName) -> Self {
        StoreOptions { node, memory: Self::DEFAULT_MEMORY }
    }

    /// Sets how much memory all uploads together may hold, in bytes; at least
    /// [`MIN_MEMORY`](Self::MIN_MEMORY).
    pub fn memory(self, bytes: u64) -> Self {
        StoreOptions { memory: bytes.max(Self::MIN_MEMORY), ..self }
    }

    /// Opens the store at `address` for a server whose sinks block, and removes unfinished uploads of
    /// an earlier run of this node.
    ///
    /// Starts a runtime of two threads that send requests.
    ///
    /// # Errors
    ///
    /// Returns an error if the address or the environment is invalid, or if the store cannot be
    /// reached or used.
    ///
    /// # Panics
    ///
    /// Panics in a task of a tokio runtime: use [`open_async`](Self::open_async) there. Panics if the
    /// system refuses a thread.
    pub fn open(self, address: &str) -> Result<StoreSink, StoreError> {
        let failure = |cause| StoreError::Io { address: without_secret(address), cause };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("accio-store")
            .enable_all()
            .build()
            .map_err(failure)?;
        let sink = runtime.block_on(self.open_async(address))?;
        Ok(StoreSink::new(sink, runtime))
    }

    /// Opens the store at `address` for a server on tokio, and removes unfinished uploads of an
    /// earlier run of this node.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`open`](Self::open).
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime whose I/O and time are enabled.
    ///
    /// # Cancellation
    ///
    /// Dropping the future is safe. It may leave the empty object `.accio-probe`, which the next start
    /// removes, and orphans of an earlier run.
    pub async fn open_async(self, address: &str) -> Result<AsyncStoreSink, StoreError> {
        let (backend, root) = select(address, &self.node)?;
        let memory = usize::try_from(self.memory).unwrap_or(usize::MAX);
        let location = Location { address: without_secret(address), root, node: self.node.0 };
        let opened = backend.into_sink(location, memory).await;
        opened.map_err(|cause| StoreError::Io { address: without_secret(address), cause })
    }
}

/// The name of a receiver, which is part of every object's path and must be unique in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeName(String);

/// A string that is not a valid [`NodeName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a node name: use up to 200 letters, digits, dots, hyphens and underscores, and no dot first"
)]
#[non_exhaustive]
pub struct InvalidNodeName;

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    /// Accepts a name that is a single visible path segment in every store.
    fn from_str(value: &str) -> Result<Self, InvalidNodeName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let hidden = value.starts_with('.');
        if value.is_empty() || value.len() > 200 || hidden || !value.chars().all(plain) {
            return Err(InvalidNodeName);
        }
        Ok(NodeName(value.to_owned()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error that prevents opening a store. A password in the address is left out. The cause is part of
/// the message, so [`source`](std::error::Error::source) returns nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address is not a URL of a store: use one of the [kinds of addresses](crate#addresses).
    #[error("cannot use store {address}: {reason}")]
    InvalidAddress {
        /// The address.
        address: String,
        /// The reason why the address is invalid.
        reason: String,
    },
    /// The store is reached over HTTP, which needs the feature `network` of this crate.
    #[error("cannot use store {address}: accio-store was built without the feature network")]
    NotBuiltIn {
        /// The address.
        address: String,
        /// Its scheme, such as `s3`.
        scheme: String,
    },
    /// The settings in the environment, such as credentials, are incomplete or invalid; the reason names
    /// the missing one.
    #[error("cannot use store {address}: {reason}")]
    InvalidSettings {
        /// The address.
        address: String,
        /// The message of the store's client.
        reason: String,
    },
    /// The store cannot be reached or refuses a request. Check the network, the credentials and their
    /// permissions: opening lists, puts and deletes objects. Failed requests were repeated for up to 30
    /// seconds.
    #[error("cannot use store {address}: {}", accio_proto::os_error_text(.cause))]
    Io {
        /// The address.
        address: String,
        /// The error of the system or the store.
        cause: io::Error,
    },
}

/// Returns the address without its password.
fn without_secret(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut url) if url.password().is_some() => match url.set_password(None) {
            Ok(()) => url.into(),
            Err(()) => url.scheme().to_owned(),
        },
        _ => address.escape_debug().to_string(),
    }
}

/// Returns the store at an address and the receiver's own path in it.
fn select(address: &str, node: &NodeName) -> Result<(Backend, Path), StoreError> {
    let invalid = |reason: String| {
        let address = without_secret(address);
        StoreError::InvalidAddress { address, reason }
    };
    let url = Url::parse(address).map_err(|error| invalid(error.to_string()))?;
    let (scheme, prefix) = match ObjectStoreScheme::parse(&url) {
        Ok((ObjectStoreScheme::Memory, _)) | Err(_) => {
            let known = "not s3://, gs://, az://, http://, https:// or file://";
            return Err(invalid(known.to_owned()));
        }
        Ok(parsed) => parsed,
    };
    let backend = match scheme {
        ObjectStoreScheme::Local => {
            let directory = url.to_file_path();
            let directory =
                directory.map_err(|()| invalid("not a path of this machine".to_owned()))?;
            backend::directory::open(directory.join(&node.0))
        }
        #[cfg(feature = "network")]
        scheme => {
            let settings = backend::network::settings(std::env::vars_os());
            backend::network::open(scheme, &url, &settings).map_err(|reason| {
                StoreError::InvalidSettings { address: without_secret(address), reason }
            })?
        }
        #[cfg(not(feature = "network"))]
        _ => {
            let (address, scheme) = (without_secret(address), url.scheme().to_owned());
            return Err(StoreError::NotBuiltIn { address, scheme });
        }
    };
    Ok((backend, prefix.join(node.0.as_str())))
}

impl Backend {
    /// Removes orphans of an earlier run and probes the store's capabilities.
    async fn into_sink(self, location: Location, memory: usize) -> io::Result<AsyncStoreSink> {
        let Backend { store, mut capabilities, orphans } = self;
        let count = orphans.remove(&location.root).await?;
        // Compatible stores may support only a part of the protocol.
        if capabilities.conditional && capabilities.notes {
            capabilities.conditional = refuses(&*store, &location.root).await?;
        }
        if !capabilities.conditional {
            log::warn!(
                "this store ignores conditional puts: two uploads of the same name that end at almost \
                 the same time can overwrite each other; give each receiver its own node name"
            );
        }
        if count > 0 {
            log::warn!("removed {count} unfinished uploads of an earlier run");
        }
        Ok(AsyncStoreSink::new(Shared::new(store, capabilities, location, memory)))
    }
}

/// Returns whether the store refuses to overwrite an object on a conditional put; some ignore the
/// condition.
async fn refuses(store: &dyn ObjectStore, root: &Path) -> io::Result<bool> {
    let path = root.clone().join(".accio-probe");
    let put = || store.put_opts(&path, PutPayload::new(), PutOptions::from(PutMode::Create));
    let answer = match put().await {
        // The object is left over from an interrupted probe.
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(true),
        Err(Error::NotImplemented { .. }) => return Ok(false),
        Err(error) => return Err(store_error(&error)),
        Ok(_) => match put().await {
            Ok(_) => Ok(false),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(true),
            Err(error) => Err(store_error(&error)),
        },
    };
    store.delete(&path).await.map_err(|error| store_error(&error))?;
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::TryStreamExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::tests::Faulty;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn errors_do_not_contain_the_password() {
        let shown = without_secret("https://me:hush@example.org/in");
        assert_eq!(shown, "https://me@example.org/in");
        assert_eq!(without_secret("s3://bucket/a\nb"), "s3://bucket/a\\nb");
    }

    #[test]
    fn errors_print_their_cause_and_return_no_source() {
        let address = || "s3://bucket".to_owned();
        let reason = || "the reason".to_owned();
        let errors = [
            StoreError::InvalidAddress { address: address(), reason: reason() },
            StoreError::NotBuiltIn { address: address(), scheme: "s3".into() },
            StoreError::InvalidSettings { address: address(), reason: reason() },
            StoreError::Io { address: address(), cause: io::Error::other("the reason") },
        ];
        for error in errors {
            let has_reason = match &error {
                StoreError::NotBuiltIn { .. } => false,
                StoreError::InvalidAddress { .. }
                | StoreError::InvalidSettings { .. }
                | StoreError::Io { .. } => true,
            };
            assert_eq!(error.to_string().ends_with(": the reason"), has_reason, "{error}");
            assert!(std::error::Error::source(&error).is_none(), "{error:?}");
        }
    }

    #[test]
    fn rejects_addresses_of_unknown_stores() {
        let why = |address: &str| select(address, &"n".parse().unwrap()).unwrap_err().to_string();
        for address in ["memory:///x", "ftp://host/x", "s3:///x"] {
            assert!(why(address).contains("not s3://, gs://"), "{}", why(address));
        }
        assert!(why("file://host/x").starts_with("cannot use store file://host/x: "));
    }

    #[test]
    fn probes_the_capabilities_of_a_store() {
        let root = Path::from("p/n");
        let faulty = Faulty::default();
        let plan = Arc::clone(&faulty.plan);
        let answer = |store: &Faulty| runtime().block_on(refuses(store, &root));
        assert!(answer(&faulty).unwrap());
        plan.ignores_conditions();
        assert!(!answer(&faulty).unwrap());
        plan.fail_puts(1);
        let why = answer(&faulty).unwrap_err().to_string();
        assert!(why.contains("out of order for now"), "{why}");
        let left = runtime().block_on(faulty.list(None).try_collect::<Vec<_>>()).unwrap();
        assert!(left.is_empty(), "{left:?}");
        // An interrupted probe must not make later starts fail.
        let store = InMemory::new();
        let probe = root.clone().join(".accio-probe");
        runtime().block_on(store.put(&probe, PutPayload::new())).unwrap();
        assert!(runtime().block_on(refuses(&store, &root)).unwrap());
        assert!(runtime().block_on(refuses(&store, &root)).unwrap());
    }

    #[test]
    fn a_node_name_is_a_single_path_segment() {
        for good in ["a", "node-1.example.org", "A_b"] {
            assert_eq!(good.parse::<NodeName>().unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", &"x".repeat(201)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }
}
