//! The handle that stops a server and reports its state.

use std::io;
use std::sync::Arc;
#[cfg(feature = "tls")]
use std::sync::{Mutex, PoisonError};

use super::in_progress::{ConnectionStatus, InProgress};
use super::server_limits::ServerLimits;
use super::stats::{Counters, Stats};
use crate::sys::signal::Signal;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;

/// Stops a server from another thread, and reports its state. Clones refer to the same server.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    controls: Arc<Controls>,
}

/// State shared by a server and its handles.
#[derive(Debug)]
pub(super) struct Controls {
    pub(super) stop: Signal,
    pub(super) drain: Signal,
    pub(super) counters: Counters,
    pub(super) in_progress: InProgress,
    limits: ServerLimits,
    #[cfg(feature = "tls")]
    tls: Option<Mutex<ServerTls>>,
}

impl Controls {
    pub(super) fn new(limits: ServerLimits) -> io::Result<Self> {
        let (stop, drain) = (Signal::new()?, Signal::new()?);
        Ok(Controls {
            stop,
            drain,
            counters: Counters::default(),
            in_progress: InProgress::new(limits.max_connections),
            limits,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    #[cfg(feature = "tls")]
    pub(super) fn with_tls(self, tls: Option<ServerTls>) -> Self {
        Controls { tls: tls.map(Mutex::new), ..self }
    }

    /// Returns whether connections use TLS.
    #[cfg(feature = "tls")]
    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns the TLS settings for the next connection.
    #[cfg(feature = "tls")]
    pub(super) fn tls(&self) -> Option<ServerTls> {
        // The only change is one assignment, so the value is consistent even if another thread
        // panics.
        let tls = self.tls.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(tls.clone())
    }
}

impl ServerHandle {
    pub(super) fn new(controls: Arc<Controls>) -> Self {
        ServerHandle { controls }
    }

    /// Stops the server: it accepts no more connections, aborts unfinished transfers and returns
    /// from [`Server::run`](super::Server::run). Has no effect on a stopped server; a server that
    /// is not running yet stops as soon as it runs.
    pub fn stop(&self) {
        self.controls.stop.raise();
    }

    /// Lets running transfers finish: the server stops listening, and returns from
    /// [`Server::run`](super::Server::run) after the last connection has ended.
    /// [`stop`](ServerHandle::stop) ends this early.
    pub fn drain(&self) {
        self.controls.drain.raise();
    }

    /// Replaces the TLS settings for later connections. Has no effect on a server that does not use
    /// TLS.
    #[cfg(feature = "tls")]
    pub fn set_tls(&self, tls: impl Into<ServerTls>) {
        if let Some(current) = &self.controls.tls {
            *current.lock().unwrap_or_else(PoisonError::into_inner) = tls.into();
        }
    }

    /// Returns the counters of the server.
    pub fn stats(&self) -> Stats {
        self.controls.counters.stats()
    }

    /// Returns the connections in service, in no particular order, each with its state at the time
    /// the iterator reaches it.
    ///
    /// This takes no lock that a transfer needs, so it may be called often. A connection that has
    /// ended is here until it was [reported](super::ServerBuilder::on_outcome).
    ///
    /// ```
    /// # use accio_proto::{MemorySink, Server};
    /// let server = Server::builder(MemorySink::new()).bind("127.0.0.1:0")?;
    /// let handle = server.handle();
    /// for upload in handle.connections() {
    ///     println!("{}: {} bytes in {:?}", upload.id, upload.bytes, upload.age);
    /// }
    /// # Ok::<(), accio_proto::ServerError>(())
    /// ```
    pub fn connections(&self) -> impl Iterator<Item = ConnectionStatus> {
        self.controls.in_progress.iter()
    }

    /// Returns the limits of the server.
    pub fn limits(&self) -> &ServerLimits {
        &self.controls.limits
    }
}
