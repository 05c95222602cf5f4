//! The server: many connections at once, each into one file of a sink.

mod admission;
mod builder;
mod config;
mod connections;
mod error;
mod handle;
mod limit_log;
mod listener;
mod outcome;
mod per_session;
mod proxy_protocol;
#[cfg_attr(not(linux_sys), path = "reactor/unavailable.rs")]
mod reactor;
mod stats;
mod threading_mode;

use std::fmt;
use std::net::SocketAddr;

pub use admission::{InvalidNetwork, Network};
pub use builder::ServerBuilder;
pub use error::ServerError;
pub use handle::ServerHandle;
pub use outcome::Outcome;
pub use stats::Stats;
pub use threading_mode::Threading;

use crate::sink::FileSink;
use per_session::Threads;
use reactor::Reactor;

/// A server that listens already; [`run`](Server::run) serves.
///
/// Dropped without being run, it stops listening; who had connected is reset.
pub struct Server<K: FileSink> {
    backend: Backend<K>,
    addresses: Vec<SocketAddr>,
    handle: ServerHandle,
}

/// How it serves.
enum Backend<K: FileSink> {
    Reactor { reactor: Box<Reactor<K>>, workers: usize },
    PerSession(Box<Threads<K>>),
}

impl<K: FileSink> Server<K> {
    /// Where it listens, with the port the system chose if port 0 was asked for; the first address
    /// if there are several.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses where it listens, in the order of their sockets; at least one.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A handle to stop it from another thread.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until it is stopped: by a handle, or by an error that no connection can cause.
    ///
    /// When it returns, nobody listens, unfinished transfers are aborted, and every connection's
    /// outcome was told.
    ///
    /// # Errors
    ///
    /// [`ServerError::Start`] when a worker of the [reactor](Threading::Reactor) cannot be started,
    /// [`ServerError::Serve`] when the event queue fails.
    ///
    /// # Panics
    ///
    /// When the sink or the observer panicked in a worker.
    pub fn run(self) -> Result<(), ServerError> {
        let Server { backend, handle, .. } = self;
        match backend {
            Backend::Reactor { reactor, workers } => reactor.run(workers, &handle),
            Backend::PerSession(threads) => threads.run(&handle),
        }
    }

    /// How it serves: as asked for, or what suits the sink and the system.
    pub fn threading(&self) -> Threading {
        match self.backend {
            Backend::Reactor { .. } => Threading::Reactor,
            Backend::PerSession(_) => Threading::PerSession,
        }
    }
}

impl<K: FileSink> fmt::Debug for Server<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .field("threading", &self.threading())
            .finish_non_exhaustive()
    }
}
