//! Accio, a file drop over raw TCP. A client connects, the server sends a greeting, and the client
//! sends a file and closes the connection. The server stores the complete file, or the word `ERROR`
//! and nothing of the file.
//!
//! A server that stores files in memory, and a client that sends one:
//!
//! ```
//! use accio_proto::{Client, MemorySink, Server, Stored};
//!
//! let files = MemorySink::new();
//! let server = Server::builder(files.clone()).bind("127.0.0.1:0")?;
//! let (port, handle) = (server.local_addr().port(), server.handle());
//! let serving = std::thread::spawn(move || server.run());
//!
//! let sent = Client::builder().build()?.send("127.0.0.1", port, &b"some content"[..])?;
//! assert!(sent.confirmed, "the server closed, so it has kept the file");
//! assert_eq!(files.get(1), Some(Stored::Complete(b"some content".to_vec())));
//!
//! handle.stop();
//! serving.join().expect("no panic in the server")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A server that reports what it stores, until a handle stops it:
//!
//! ```no_run
//! use accio_proto::{MemorySink, Server};
//!
//! let files = MemorySink::new();
//! let server = Server::builder(files.clone())
//!     .on_outcome(|end| println!("{}: {} bytes, {:?}", end.connection.id, end.bytes, end.result))
//!     .bind("127.0.0.1:0")?;
//! println!("listening on {}", server.local_addr());
//! let handle = server.handle();               // handle.stop() stops the server from another thread
//! server.run()?;
//! # Ok::<(), accio_proto::ServerError>(())
//! ```
//!
//! The module `guide` explains the protocol in ten minutes.
//!
//! # Contents
//!
//! - [`Server`] accepts connections and serves all of them with a few threads. A [`FileSink`] stores
//!   the files: [`DirSink`], [`CountSink`], [`MemorySink`] or your own.
//! - [`Client`] sends a file and waits until the server has stored it.
//! - [`handshake`] contains both sides of the [`Dialect`]s as sans-IO parsers, for any runtime.
//! - [`Copier`] moves bytes from a socket into a file by the fastest path of the kernel.
//! - [`Session`] is one connection from greeting to commit, driven by its caller.
//!
//! # Guarantees
//!
//! A file is complete if and only if the client's FIN was the first thing to end its connection. It
//! then has exactly the bytes that the client sent after the handshake. In every other case
//! (silence for longer than [`limits::IDLE_TIMEOUT`], a reset, a violated handshake, a failed sink,
//! a stopped server) it is [`ERROR_MARKER`] and nothing else. The server closes a connection
//! gracefully only after it has committed the file, and resets it otherwise, even when its process
//! is killed. [`Client`] waits for this graceful close, which confirms the file.
//!
//! # Features
//!
//! | feature | items | dependencies |
//! |---|---|---|
//! | none | [`Dialect`], [`handshake`], [`Port`], [`limits`] | thiserror |
//! | `io` | [`Copier`], [`Session`], the sinks | log, rustix, socket2 |
//! | `client` (default) | [`Client`] and `io` | dns-lookup |
//! | `server` (default) | [`Server`] and `io` | ipnet, proxy-header |
//! | `tls` | TLS for both | rustls |
//! | `digest` | digests of content: SHA-256, BLAKE3 | sha2, blake3 |
//! | `testing` | a fake server, for tests of programs that send files | |
//! | `tracing` | a span `connection` for each connection of a server | tracing |
//! | `serde` | reads and writes `ServerConfig`, `ClientConfig`, [`SessionLimits`] and `Stats` | serde |
#![cfg_attr(docsrs, feature(doc_cfg))]
// Some links of the documentation name items of these features.
#![cfg_attr(
    not(all(feature = "client", feature = "server")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "io")]
mod connection;
#[cfg(feature = "io")]
mod content_hasher;
#[cfg(test)]
mod content_hasher_test;
#[cfg(feature = "io")]
mod copier;
mod dialect;
#[cfg(feature = "io")]
mod digest;
#[cfg(all(test, feature = "io"))]
mod errors_test;
#[cfg(feature = "io")]
mod fast_path;
#[cfg(all(doc, feature = "io"))]
pub mod guide;
pub mod handshake;
#[cfg(feature = "io")]
mod hasher;
#[cfg(feature = "io")]
mod interest;
pub mod limits;
#[cfg(feature = "io")]
mod os_error;
/// For the other crates of this project.
#[cfg(feature = "io")]
#[doc(hidden)]
pub mod panics;
#[cfg(feature = "io")]
mod pipe_budget;
mod port;
/// For the other crates of this project.
#[cfg(feature = "io")]
#[doc(hidden)]
pub mod program_log;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "io")]
mod session;
#[cfg(feature = "io")]
mod sink;
#[cfg(feature = "io")]
mod socket;
#[cfg(feature = "io")]
mod sys;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(all(feature = "serde", feature = "io"))]
mod text;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "io")]
mod tuning;

#[cfg(feature = "client")]
pub use client::{
    AddressProbe, Client, ClientBuilder, ClientConfig, ClientError, ClientEvent, Connected, Family,
    Finding, Probe, Progress, Sent, ServerReply, Source, TlsFailure, Watch,
};
#[cfg(feature = "io")]
pub use connection::Connection;
#[cfg(feature = "io")]
pub use copier::{Copier, CopyError, Step};
pub use dialect::{
    Dialect, FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION, ServerDialect, UnknownDialect,
};
#[cfg(feature = "io")]
pub use digest::{Digest, DigestAlgorithm, InvalidDigest};
#[cfg(feature = "io")]
pub use fast_path::{FastPath, FastPaths, UnknownFastPath};
#[cfg(feature = "digest")]
pub use hasher::Hasher;
#[cfg(feature = "io")]
pub use interest::Interest;
#[cfg(feature = "io")]
pub use os_error::reason as os_error_text;
pub use port::{InvalidPort, Port};
#[cfg(all(feature = "server", feature = "tls"))]
pub use server::FailedHandshake;
#[cfg(feature = "server")]
pub use server::driver;
#[cfg(feature = "server")]
pub use server::{
    Acknowledgement, ConnectionStatus, InvalidNetwork, Network, Outcome, Phase, Review, Server,
    ServerBuilder, ServerConfig, ServerError, ServerHandle, ServerLimits, Stats, Threading,
};
#[cfg(feature = "io")]
pub use session::{
    Abort, Closing, Ended, Expiry, Session, SessionLimits, SinkCall, Turn, Unreleased,
};
#[cfg(feature = "io")]
pub use sink::{
    CountFile, CountSink, Demand, DirError, DirErrorKind, DirFile, DirOptions, DirSink,
    ERROR_MARKER, Existing, FileSink, MemoryFile, MemorySink, OpenError, SinkFile, Stored,
};
#[cfg(feature = "io")]
pub use socket::{Socket, TcpSocket};
