//! From an address to a sink: which store it is, what it can do, what is there.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use accio_cli::{Failure, reason};
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::Runtime;
use url::Url;

use super::{Shared, StoreSink, THREADS, Traits, leftovers, told};

/// Where the files go, and as whose.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    pub(super) address: &'a str,
    pub(super) node: &'a str,
    pub(super) memory: u64,
    pub(super) ids_from: u64,
    pub(super) ids_from_store: bool,
}

/// Connects, clears away what an earlier run left, and finds the number to begin with.
pub(super) fn connect(connection: &Connection<'_>) -> Result<(StoreSink, u64), Failure> {
    let failure = |why: &dyn Display| unusable(connection.address, why);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("accio-store")
        .enable_all()
        .build()
        .map_err(|error| failure(&reason(&error)))?;
    let (store, root) = open(connection.address, connection.node)?;
    let memory = usize::try_from(connection.memory).unwrap_or(usize::MAX);
    let sink = store.into_sink(runtime, root, connection.node, memory);
    let (sink, count) = sink.map_err(|error| failure(&error))?;
    if count > 0 {
        log::warn!("{count} unfinished uploads of an earlier run are gone");
    }
    let shared = &sink.shared;
    let highest = shared.runtime.block_on(shared.highest()).map_err(|error| failure(&error))?;
    let first = match highest {
        Some(highest) if connection.ids_from_store => {
            let next = highest.checked_add(1);
            next.ok_or_else(|| failure(&"no number is above the highest there"))?
        }
        Some(highest) if highest >= connection.ids_from => {
            let why = format!(
                "objects up to {}/{highest}.file are there: --ids-from-store goes on after them; \
                 or is another receiver called {:?} too (--node)?",
                shared.root, connection.node
            );
            return Err(failure(&why));
        }
        _ => 0,
    };
    Ok((sink, first.max(connection.ids_from)))
}

/// A store that was opened, and what is to be known of it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) store: Arc<dyn ObjectStore>,
    /// As its kind has them.
    pub(super) traits: Traits,
    pub(super) earlier: Earlier,
}

/// Where to look for what an earlier run left unfinished.
#[derive(Debug)]
pub(super) enum Earlier {
    Folder(PathBuf),
    #[cfg(feature = "store")]
    S3(object_store::aws::AmazonS3),
    /// The store removes it by itself, or its operator has it do so.
    #[cfg(feature = "store")]
    Nowhere,
}

fn unusable(address: &str, why: &dyn Display) -> Failure {
    Failure::new(format_args!("cannot use store {}", without_secret(address)), why)
}

/// The address without what only its store may know.
fn without_secret(address: &str) -> String {
    match Url::parse(address) {
        Ok(mut url) if url.password().is_some() => match url.set_password(None) {
            Ok(()) => url.into(),
            Err(()) => url.scheme().to_owned(),
        },
        _ => address.escape_debug().to_string(),
    }
}

/// The store an address means, and the receiver's own place in it.
fn open(address: &str, node: &str) -> Result<(Opened, Path), Failure> {
    let failure = |why: &dyn Display| unusable(address, why);
    let url = Url::parse(address).map_err(|error| failure(&error))?;
    let (scheme, prefix) = match ObjectStoreScheme::parse(&url) {
        Ok((ObjectStoreScheme::Memory, _)) | Err(_) => {
            return Err(failure(&"not s3://, gs://, az://, http://, https:// or file://"));
        }
        Ok(parsed) => parsed,
    };
    let opened = match scheme {
        ObjectStoreScheme::Local => {
            let folder = url.to_file_path();
            folder_store(folder.map_err(|()| failure(&"no path of this machine"))?.join(node))
        }
        #[cfg(feature = "store")]
        scheme => {
            let settings = super::network::settings(std::env::vars_os());
            super::network::open(scheme, &url, &settings).map_err(|why| failure(&why))?
        }
        #[cfg(not(feature = "store"))]
        _ => return Err(crate::another_build(address)),
    };
    Ok((opened, prefix.join(node)))
}

fn folder_store(folder: PathBuf) -> Opened {
    Opened {
        store: Arc::new(LocalFileSystem::new()),
        traits: Traits {
            conditional: true,
            notes: false,
            multipart: true,
            parts_outlive_puts: true,
        },
        earlier: Earlier::Folder(folder),
    }
}

impl Opened {
    /// Clears away what an earlier run left; how much that was.
    fn into_sink(
        self,
        runtime: Runtime,
        root: Path,
        node: &str,
        memory: usize,
    ) -> io::Result<(StoreSink, usize)> {
        let count = match &self.earlier {
            Earlier::Folder(folder) => leftovers::reap(folder)?,
            #[cfg(feature = "store")]
            Earlier::S3(s3) => runtime.block_on(super::unfinished::reap(s3, &root))?,
            #[cfg(feature = "store")]
            Earlier::Nowhere => 0,
        };
        let Opened { store, mut traits, .. } = self;
        // Others than those their kind is named after speak its language, and not all of it.
        if traits.conditional && traits.notes {
            traits.conditional = runtime.block_on(refuses(&*store, &root))?;
        }
        if !traits.conditional {
            log::warn!(
                "this store overwrites what it is asked not to: that another receiver has the same \
                 --node is still noticed, unless two uploads meet within moments"
            );
        }
        Ok((StoreSink::new(runtime, store, traits, (root, node.to_owned()), memory), count))
    }
}

/// Whether the store refuses to put what is there, when asked to; some ignore the question.
async fn refuses(store: &dyn ObjectStore, root: &Path) -> io::Result<bool> {
    let path = root.clone().join(".accio-probe");
    let put = || store.put_opts(&path, PutPayload::new(), PutOptions::from(PutMode::Create));
    let answer = match put().await {
        // Left by a probe that was cut short.
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(true),
        Err(Error::NotImplemented { .. }) => return Ok(false),
        Err(error) => return Err(told(&error)),
        Ok(_) => match put().await {
            Ok(_) => Ok(false),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(true),
            Err(error) => Err(told(&error)),
        },
    };
    store.delete(&path).await.map_err(|error| told(&error))?;
    answer
}

impl Shared {
    /// The highest number of an object of ours.
    async fn highest(&self) -> io::Result<Option<u64>> {
        let objects = self.store.list(Some(&self.root));
        let highest = objects.try_fold(None, |highest: Option<u64>, object| {
            std::future::ready(Ok(highest.max(self.number(&object.location))))
        });
        highest.await.map_err(|error| told(&error))
    }

    /// The number of an object that is named as we name ours: no folder, no sign, no leading zero.
    fn number(&self, path: &Path) -> Option<u64> {
        let mut steps = path.prefix_match(&self.root)?;
        let name = steps.next().filter(|_| steps.next().is_none())?;
        let id = name.as_ref().strip_suffix(".file")?;
        id.parse().ok().filter(|number: &u64| number.to_string() == id)
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::super::tests::{self, Faulty};
    use super::*;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_password_is_not_told() {
        let told = without_secret("https://me:hush@example.org/in");
        assert_eq!(told, "https://me@example.org/in");
        assert_eq!(without_secret("s3://bucket/a\nb"), "s3://bucket/a\\nb");
    }

    #[test]
    fn addresses_that_mean_no_store() {
        let why = |address: &str| open(address, "n").unwrap_err().to_string();
        for address in ["memory:///x", "ftp://host/x", "s3:///x"] {
            assert!(why(address).contains("not s3://, gs://"), "{}", why(address));
        }
        assert!(why("file://host/x").starts_with("cannot use store file://host/x: "));
    }

    #[test]
    fn a_store_is_tried_for_what_it_claims() {
        let root = Path::from("p/n");
        let faulty = Faulty::default();
        let plan = Arc::clone(&faulty.plan);
        let answer = |store: &Faulty| runtime().block_on(refuses(store, &root));
        assert!(answer(&faulty).unwrap());
        plan.careless();
        assert!(!answer(&faulty).unwrap());
        plan.fail_puts(1);
        let why = answer(&faulty).unwrap_err().to_string();
        assert!(why.contains("out of order for now"), "{why}");
        let left = runtime().block_on(faulty.list(None).try_collect::<Vec<_>>()).unwrap();
        assert!(left.is_empty(), "{left:?}");
        // One that was cut short is no reason to fail for ever.
        let store = InMemory::new();
        let probe = root.clone().join(".accio-probe");
        runtime().block_on(store.put(&probe, PutPayload::new())).unwrap();
        assert!(runtime().block_on(refuses(&store, &root)).unwrap());
        assert!(runtime().block_on(refuses(&store, &root)).unwrap());
    }

    #[test]
    fn the_highest_number_is_that_of_a_name_we_write() {
        let store = InMemory::new();
        let root = Path::from("p/node");
        let names =
            ["7.file", "12.file", "013.file", "+14.file", "15.files", "s/16.file", "17.file/x"];
        for name in names {
            let path = Path::from(format!("{root}/{name}"));
            runtime().block_on(store.put(&path, PutPayload::new())).unwrap();
        }
        let other = Path::from("p/node2/99.file");
        runtime().block_on(store.put(&other, PutPayload::new())).unwrap();
        let sink = tests::sink(Arc::new(store), tests::CLOUD, 0);
        assert_eq!(sink.shared.runtime.block_on(sink.shared.highest()).unwrap(), Some(12));
        let empty = tests::sink(Arc::new(InMemory::new()), tests::CLOUD, 0);
        assert_eq!(empty.shared.runtime.block_on(empty.shared.highest()).unwrap(), None);
    }
}
