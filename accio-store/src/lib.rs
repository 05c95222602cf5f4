//! Stores the files that an Accio server receives in an object store: connection N's bytes become
//! the object `PREFIX/NODE/N.file`.
//!
//! ```no_run
//! use accio_proto::Server;
//! use accio_store::StoreOptions;
//!
//! let sink = StoreOptions::new("receiver-1".parse()?).open("file:///srv/accio")?;
//! let first_id = match sink.highest()? {
//!     Some(highest) => highest.checked_add(1).ok_or("all numbers are used")?,
//!     None => 1,
//! };
//! Server::builder(sink.clone()).first_id(first_id).bind("0.0.0.0:5000")?.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On tokio, with a task instead of a thread for each connection:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let sink = accio_store::StoreOptions::new("receiver-1".parse()?).open_async("file:///srv/accio").await?;
//! let listener = tokio::net::TcpListener::bind("0.0.0.0:5000").await?;
//! let mut config = accio_proto::ServerConfig::default();
//! config.first_id = sink.highest().await?.map_or(1, |highest| highest + 1);
//! accio_tokio::serve_async(listener, sink, config)?.ended().await?;
//! # Ok(())
//! # }
//! ```
//!
//! An object is absent, complete, empty or [`ERROR_MARKER`](accio_proto::ERROR_MARKER). Content
//! that fits into one part is put at the commit; larger content is uploaded part by part and shows
//! only once the upload is completed. The name is taken by a put that fails if the name exists, so
//! that of two receivers with the same node name one fails and neither overwrites the other's
//! object.
//!
//! # Addresses
//!
//! | address | store | feature |
//! |---|---|---|
//! | `file:///PATH` | a directory | none |
//! | `s3://BUCKET/PREFIX` | Amazon S3 and compatible stores | `network` |
//! | `gs://BUCKET/PREFIX` | Google Cloud Storage | `network` |
//! | `az://CONTAINER/PREFIX` | Azure Blob Storage | `network` |
//! | `http://`, `https://` | WebDAV | `network` |
//!
//! Credentials and settings come from the environment: `AWS_*`, `GOOGLE_*` and `AZURE_*`, as
//! [`object_store`] documents them.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod backend;
mod blocking;
mod buffer_pool;
mod conditional_put;
mod file;
mod memory_budget;
mod open;
mod orphans;
mod part_size;
mod program_log;
mod shared;
mod sink;
#[cfg(test)]
mod tests;

pub use blocking::{StoreFile, StoreSink};
pub use file::AsyncStoreFile;
pub use open::{InvalidNodeName, NodeName, StoreError, StoreOptions};
pub use sink::AsyncStoreSink;
