//! The server: many connections at once, each into one file of a sink.

mod acknowledgement;
mod admission;
mod builder;
mod config;
#[cfg_attr(not(linux_sys), allow(dead_code, reason = "only the reactor calls some of it"))]
mod connection;
#[cfg_attr(not(linux_sys), allow(dead_code, reason = "only the reactor calls some of it"))]
mod connections;
mod error;
mod handle;
mod in_progress;
mod limit_log;
mod listener;
mod outcome;
mod per_session;
mod proxy_protocol;
#[cfg_attr(not(linux_sys), path = "reactor/unavailable.rs")]
mod reactor;
mod server_limits;
mod stats;
mod threading_mode;
#[cfg(feature = "tls")]
mod tls_handshake;
mod transport;

use std::fmt;
use std::net::SocketAddr;

pub use acknowledgement::Acknowledgement;
pub use admission::{InvalidNetwork, Network};
pub use builder::ServerBuilder;
pub use error::ServerError;
pub use handle::ServerHandle;
pub use in_progress::{ConnectionStatus, Phase};
pub use outcome::Outcome;
pub use server_limits::ServerLimits;
pub use stats::Stats;
pub use threading_mode::Threading;
#[cfg(feature = "tls")]
pub use tls_handshake::FailedHandshake;

use crate::sink::FileSink;
use per_session::PerSession;
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
    Reactor(Box<Reactor<K>>),
    PerSession(Box<PerSession<K>>),
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
    /// When it returns, it no longer listens, unfinished transfers are aborted, and every outcome
    /// was reported. A [stop](ServerHandle::stop) takes less than a second in
    /// [reactor](Threading::Reactor) mode, whatever the sink is doing; a call that is stuck in the
    /// kernel, and the release of discarded content, may outlive it.
    ///
    /// A panic of the sink ends the connection it was called for and no other; a panic of the
    /// observer or the recorder ends none.
    ///
    /// # Errors
    ///
    /// [`ServerError::Start`] when a thread of the reactor cannot be started,
    /// [`ServerError::Serve`] when the event queue fails.
    pub fn run(self) -> Result<(), ServerError> {
        let Server { backend, handle, .. } = self;
        match backend {
            Backend::Reactor(reactor) => reactor.run(),
            Backend::PerSession(threads) => threads.run(&handle),
        }
    }

    /// How it serves: as asked for, or what suits the sink and the system.
    pub fn threading(&self) -> Threading {
        match self.backend {
            Backend::Reactor(_) => Threading::Reactor,
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
