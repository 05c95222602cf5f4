//! Accio.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
mod client;
mod copier;
mod dialect;
mod fast_path;
pub mod handshake;
pub mod limits;
mod port;
mod reason;
mod server;
mod session;
mod sink;
mod sys;

pub use dialect::{
    Dialect, FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION, ServerDialect, UnknownDialect,
};
pub use fast_path::{FastPath, FastPaths, UnknownFastPath};

pub use client::{Client, ClientBuilder, ClientError, Progress, Sent, Source};
pub use copier::{Copier, CopyError, Step};
pub use port::{InvalidPort, Port};
pub use server::{
    InvalidNetwork, Network, Outcome, Server, ServerBuilder, ServerError, ServerHandle,
};
pub use session::{Abort, Ended, Session, Socket, TcpSocket, Turn, Unreleased};
pub use sink::{
    CountFile, CountSink, Demand, DirError, DirFile, DirOptions, DirSink, ERROR_MARKER, FileSink,
    MemoryFile, MemorySink, SinkFile, Stored,
};
pub use sys::poll::Interest;
