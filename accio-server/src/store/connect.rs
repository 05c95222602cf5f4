//! From an address to a sink: which store it is, what it can do, what is there.

use std::fmt::Display;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use accio_proto::cli::{Failure, reason};
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;
use url::Url;

use super::{Shared, StoreSink, THREADS, Traits, leftovers, told};

/// How long one request may take by default (seconds: 120): a part, over a slow line.
const REQUEST: &str = "120 seconds";

/// How long a request that fails is repeated, at the most.
const RETRY: Duration = Duration::from_secs(30);

/// How often, at the most.
const RETRIES: usize = 8;

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
    let address = without_secret(connection.address);
    let failure = |why: &dyn Display| Failure::new(format_args!("cannot use store {address}"), why);
    // Nobody else chooses one in this process, so there is none yet; an error would be one to use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("accio-store")
        .enable_all()
        .build()
        .map_err(|error| failure(&reason(&error)))?;
    let (store, root) =
        open(connection.address, connection.node).map_err(|error| failure(&error))?;
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

/// A store by its kind.
enum Store {
    S3(AmazonS3),
    Cloud(Arc<dyn ObjectStore>),
    Folder(LocalFileSystem, std::path::PathBuf),
    WebDav(Arc<dyn ObjectStore>),
}

/// The store an address means, and the receiver's own place in it.
fn open(address: &str, node: &str) -> Result<(Store, Path), String> {
    let url = Url::parse(address).map_err(|error| error.to_string())?;
    let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|error| error.to_string())?;
    let root = prefix.join(node);
    let told = |error: Error| error.to_string();
    let retry =
        RetryConfig { max_retries: RETRIES, retry_timeout: RETRY, ..RetryConfig::default() };
    let store = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::new()
                .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST);
            let builder = environment("aws_", builder, |builder, key, value| {
                AmazonS3Builder::with_config(builder, key, value)
            });
            Store::S3(builder.with_url(address).with_retry(retry).build().map_err(told)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::new()
                .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), REQUEST);
            let builder = environment("google_", builder, |builder, key, value| {
                GoogleCloudStorageBuilder::with_config(builder, key, value)
            });
            Store::Cloud(Arc::new(
                builder.with_url(address).with_retry(retry).build().map_err(told)?,
            ))
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::new()
                .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST);
            let builder = environment("azure_", builder, |builder, key, value| {
                MicrosoftAzureBuilder::with_config(builder, key, value)
            });
            Store::Cloud(Arc::new(
                builder.with_url(address).with_retry(retry).build().map_err(told)?,
            ))
        }
        ObjectStoreScheme::Http => {
            let client = ClientOptions::new().with_config(ClientConfigKey::Timeout, REQUEST);
            let client = client.with_config(ClientConfigKey::AllowHttp, "true");
            let builder = HttpBuilder::new().with_client_options(client).with_retry(retry);
            let host = &url[..url::Position::BeforePath];
            Store::WebDav(Arc::new(builder.with_url(host).build().map_err(told)?))
        }
        ObjectStoreScheme::Local => {
            let folder = url.to_file_path().map_err(|()| "no path of this machine".to_owned())?;
            Store::Folder(LocalFileSystem::new(), folder.join(node))
        }
        _ => return Err("not s3://, gs://, az://, http://, https:// or file://".to_owned()),
    };
    Ok((store, root))
}

/// Applies the environment's settings whose names the builder knows.
fn environment<B, K: FromStr>(start: &str, builder: B, apply: impl Fn(B, K, String) -> B) -> B {
    std::env::vars_os().fold(builder, |builder, (name, value)| {
        let setting = name.to_str().map(str::to_ascii_lowercase).zip(value.into_string().ok());
        match setting {
            Some((name, value)) if name.starts_with(start) => match name.parse() {
                Ok(key) => apply(builder, key, value),
                Err(_) => builder,
            },
            _ => builder,
        }
    })
}

impl Store {
    fn into_sink(
        self,
        runtime: Runtime,
        root: Path,
        node: &str,
        memory: usize,
    ) -> io::Result<(StoreSink, usize)> {
        let notes = matches!(self, Store::S3(_) | Store::Cloud(_));
        let multipart = !matches!(self, Store::WebDav(_));
        let (store, count): (Arc<dyn ObjectStore>, usize) = match self {
            Store::S3(s3) => {
                let count = runtime.block_on(leftovers::reap(&s3, &root))?;
                (Arc::new(s3), count)
            }
            Store::Folder(store, folder) => (Arc::new(store), leftovers::reap_files(&folder)?),
            Store::Cloud(store) | Store::WebDav(store) => (store, 0),
        };
        let conditional = match (notes, multipart) {
            (true, _) => runtime.block_on(refuses(&*store, &root))?,
            (false, multipart) => multipart,
        };
        if !conditional {
            log::warn!(
                "this store overwrites what it is asked not to: that another receiver has the same \
                 --node is still noticed, unless two uploads meet within moments"
            );
        }
        let traits = Traits { conditional, notes, multipart };
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
            let number = object.location.filename().and_then(|name| {
                // As we write it: no sign, no leading zero.
                let id = name.strip_suffix(".file")?;
                id.parse().ok().filter(|number: &u64| number.to_string() == id)
            });
            std::future::ready(Ok(highest.max(number)))
        });
        highest.await.map_err(|error| told(&error))
    }
}
