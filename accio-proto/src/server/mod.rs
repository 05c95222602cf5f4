//! The server: serves many connections concurrently, and stores each as a file of a sink.

mod acknowledgement;
mod admission;
mod builder;
mod config;
#[cfg_attr(not(linux_sys), allow(dead_code, reason = "only the reactor calls some of it"))]
mod connection;
#[cfg(feature = "tracing")]
mod connection_span;
#[cfg_attr(not(linux_sys), allow(dead_code, reason = "only the reactor calls some of it"))]
mod connections;
mod descriptors;
pub mod driver;
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
mod review;
mod server_config;
mod server_limits;
mod stats;
mod threading_mode;
#[cfg(feature = "tls")]
mod tls_handshake;
mod transport;
mod under_review;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

pub use acknowledgement::Acknowledgement;
pub use admission::{InvalidNetwork, Network};
pub use builder::ServerBuilder;
pub use error::ServerError;
pub use handle::ServerHandle;
pub use in_progress::{ConnectionStatus, Phase};
pub use outcome::Outcome;
pub use review::Review;
pub use server_config::ServerConfig;
pub use server_limits::ServerLimits;
pub use stats::Stats;
pub use threading_mode::Threading;
#[cfg(feature = "tls")]
pub use tls_handshake::FailedHandshake;

use crate::sink::FileSink;
use driver::Driver;
use per_session::PerSession;
use reactor::Reactor;

/// A server that is listening; [`run`](Server::run) serves connections.
///
/// When dropped without being run, it stops listening, and clients in the backlog are reset.
pub struct Server<K: FileSink> {
    backend: Backend<K>,
    addresses: Vec<SocketAddr>,
    handle: ServerHandle,
}

/// The implementation of the threading mode.
enum Backend<K: FileSink> {
    Reactor(Box<Reactor<K>>),
    PerSession(Box<PerSession<K>>),
    Runtime(Driver<K>, Vec<TcpListener>),
}

impl<K: FileSink> Server<K> {
    /// Returns the address it listens on, with the port that the system chose if port 0 was
    /// requested; the first one if there are several.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Returns all addresses it listens on, in the order of the sockets; at least one.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns a handle to stop the server from another thread.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Serves until the server is stopped by a handle, or by an error that no connection can cause.
    ///
    /// When this function returns, the server no longer listens, unfinished transfers are aborted,
    /// and every outcome has been reported. In [reactor](Threading::Reactor) mode, a
    /// [stop](ServerHandle::stop) takes less than a second, whatever the sink is doing; a call that
    /// is stuck in the kernel, and the release of discarded content, may take longer.
    ///
    /// The program's logger, and its subscriber with the feature `tracing`, must not block: each thread of
    /// the server calls them, also the one that enforces time limits.
    ///
    /// If the sink panics, only the connection that it was called for ends. If the observer or the
    /// recorder panics, no connection ends.
    ///
    /// # Errors
    ///
    /// Returns [`ServerError::Start`] if a thread of the reactor cannot be started or the server was
    /// built with [`Threading::Runtime`], and [`ServerError::Serve`] if the event queue fails.
    pub fn run(self) -> Result<(), ServerError> {
        let Server { backend, handle, .. } = self;
        match backend {
            Backend::Reactor(reactor) => reactor.run(),
            Backend::PerSession(threads) => threads.run(&handle),
            Backend::Runtime(..) => {
                let why = "it was built for a runtime, with Threading::Runtime";
                Err(ServerError::Start(io::Error::other(why)))
            }
        }
    }

    /// Returns the [`Driver`] of a server that was built with [`Threading::Runtime`], and its
    /// listening sockets, which are prepared for it.
    ///
    /// # Errors
    ///
    /// Returns [`ServerError::Start`] if the server was built with another threading mode.
    pub fn into_driver(self) -> Result<(Driver<K>, Vec<TcpListener>), ServerError> {
        let Backend::Runtime(driver, sockets) = self.backend else {
            let why = "it has threads of its own: build it with Threading::Runtime";
            return Err(ServerError::Start(io::Error::other(why)));
        };
        Ok((driver, sockets))
    }

    /// Returns the threading mode in use: the requested one, or the default for the sink and the
    /// system.
    pub fn threading(&self) -> Threading {
        match self.backend {
            Backend::Reactor(_) => Threading::Reactor,
            Backend::PerSession(_) => Threading::PerSession,
            Backend::Runtime(..) => Threading::Runtime,
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
