//! The Accio file drop on tokio: a server with blocking or asynchronous sinks, and a client.
//!
//! The protocol, the sinks and the guarantees are those of [`accio_proto`], whose types this crate
//! uses and does not export, so depend on both crates, and on tokio with its features `rt`, `net`
//! and, for files, `fs`. Each connection is a task instead of a thread. For example, a server that
//! keeps files in memory, and a client:
//!
//! ```
//! use accio_proto::{MemorySink, ServerConfig, Stored};
//! use accio_tokio::Client;
//! use tokio::net::TcpListener;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let files = MemorySink::new();
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let server = accio_tokio::serve(listener, files.clone(), ServerConfig::default())?;
//!
//! let sent = Client::default().send("127.0.0.1", server.local_addr().port(), &b"content"[..]).await?;
//! assert!(sent.confirmed, "the server closed, so it has kept the file");
//! assert_eq!(files.get(1), Some(Stored::Complete(b"content".to_vec())));
//!
//! server.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Server
//!
//! - [`serve`] stores files in any [`FileSink`](accio_proto::FileSink), such as
//!   [`DirSink`](accio_proto::DirSink); its calls run on the runtime's threads for blocking work.
//! - [`serve_async`] stores them in an [`AsyncFileSink`], which blocks no thread; with the feature
//!   `object-store`, `ObjectStoreSink` is one for any store of the crate `object_store`.
//! - [`serve_with`] and [`serve_async_with`] also set observers, a recorder, a reviewer and TLS;
//!   [`spawn`] serves an [`accio_proto::Server`] that was built with
//!   [`Threading::Runtime`](accio_proto::Threading::Runtime).
//!
//! Everything the blocking server promises holds here, because the same code decides: a file is
//! complete or absent, any other end of a connection is a reset, time limits, limits per address,
//! the PROXY protocol, confirmations and draining. The differences are:
//!
//! - A stop waits for calls of the sink that do not return.
//! - With a blocking sink, all connections share the runtime's threads for blocking work, 512 by
//!   default. As many of them as the machine has cores give connections their turns; while connections
//!   have waited for 1 to 2 ms, each millisecond doubles that number. While all 512 are in calls that do
//!   not return, the server accepts and greets connections, but neither receives content nor stores
//!   error markers.
//! - Time limits are measured with the system's clock, so `tokio::time::pause` has no effect on them.
//!
//! # Client
//!
//! [`Client::send`] sends everything that an [`AsyncRead`](tokio::io::AsyncRead) returns, with the
//! limits and observers of an [`accio_proto::ClientBuilder`].
//!
//! # Features
//!
//! | feature | items | dependencies |
//! |---|---|---|
//! | `client` (default) | [`Client`] | |
//! | `server` (default) | [`serve`], [`AsyncFileSink`] | |
//! | `tls` | TLS for both | rustls |
//! | `digest` | digests of content: SHA-256, BLAKE3 | sha2, blake3 |
//! | `object-store` | `ObjectStoreSink` | object_store |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod client;
#[cfg(any(feature = "client", feature = "server"))]
mod registration;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod sink;
#[cfg(feature = "object-store")]
mod store_sink;

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "server")]
pub use server::{
    Bridge, BridgeFile, Serving, serve, serve_async, serve_async_with, serve_with, spawn,
    spawn_async,
};
#[cfg(feature = "server")]
pub use sink::{AsyncFileSink, AsyncSinkFile};
#[cfg(feature = "object-store")]
pub use store_sink::{ObjectStoreFile, ObjectStoreSink};
