//! The server: many connections at once, each into one file of a sink.

mod admission;
mod crew;
#[cfg(all(target_os = "linux", not(accio_portable)))]
mod deadlines;
mod listener;
#[cfg(all(target_os = "linux", not(accio_portable)))]
mod listeners;
#[cfg(test)]
#[cfg(all(target_os = "linux", not(accio_portable)))]
mod model;
#[cfg(feature = "proxy-protocol")]
mod proxy;
#[cfg(all(target_os = "linux", not(accio_portable)))]
mod reactor;
mod service;
#[cfg(all(target_os = "linux", not(accio_portable)))]
mod slots;
mod stats;
mod threading;
mod threads;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use crate::dialect::{Dialect, ServerDialect};
use crate::fast_path::FastPaths;
use crate::limits;
use crate::reason::reason;
use crate::session::{Abort, SessionLimits};
use crate::sink::FileSink;
use crate::sys::signal::Signal;
use admission::Admission;
pub use admission::{InvalidNetwork, Network};
#[cfg(all(target_os = "linux", not(accio_portable)))]
use reactor::Reactor;
use service::Service;
use stats::Counters;
pub use stats::Stats;
pub use threading::Threading;
use threads::Threads;

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
    #[cfg(all(target_os = "linux", not(accio_portable)))]
    Reactor {
        reactor: Box<Reactor<K>>,
        workers: usize,
    },
    PerSession(Box<Threads<K>>),
}

/// Settings of a [`Server`]; every one has a default.
#[must_use]
pub struct ServerBuilder<K> {
    sink: K,
    dialect: ServerDialect,
    limits: SessionLimits,
    threading: Option<Threading>,
    workers: Option<NonZeroUsize>,
    max_connections: Option<NonZeroUsize>,
    paths: FastPaths,
    admission: Admission,
    #[cfg(feature = "proxy-protocol")]
    proxy_protocol: bool,
    first_id: u64,
    on_outcome: Observer,
}

/// Is told of every connection that ended.
type Observer = Box<dyn Fn(&Outcome) + Send + Sync>;

/// What serving needs of the settings.
struct Config {
    dialect: ServerDialect,
    limits: SessionLimits,
    max_connections: usize,
    admission: Admission,
    #[cfg(feature = "proxy-protocol")]
    proxy_protocol: bool,
    first_id: u64,
    on_outcome: Observer,
}

/// Stops a server from elsewhere, and tells what it does. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    controls: Arc<Controls>,
}

/// What a server and its handles share.
#[derive(Debug)]
struct Controls {
    stop: Signal,
    drain: Signal,
    counters: Counters,
}

/// What became of one connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The number of the connection, from 1 in the order of acceptance.
    pub id: u64,
    /// Who connected, where the system knows.
    pub peer: Option<SocketAddr>,
    /// What the client spoke, once it was known.
    pub dialect: Option<Dialect>,
    /// Content bytes received, whether or not they were kept; no handshake byte among them.
    pub bytes: u64,
    /// From accept to commit or abort.
    pub duration: Duration,
    /// Whether the file is complete, and if not, why it holds the error marker.
    pub result: Result<(), Abort>,
    /// Why not even the error marker could be kept: nothing new is there under this number.
    pub unmarked: Option<io::Error>,
}

/// Why a server does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is none, or a host name that has none.
    #[error("cannot listen: no such address: {}", reason(.0))]
    Address(#[source] io::Error),
    /// The address cannot be listened on: it is in use, not this machine's, or needs a privilege.
    #[error("cannot listen on {address}: {}", reason(source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A time limit of nothing, or above [`limits::MAX_TIMEOUT`].
    #[error(
        "a time limit of {} s: must be above 0 and at most {} s",
        .0.as_secs_f64(),
        limits::MAX_TIMEOUT.as_secs()
    )]
    Timeout(Duration),
    /// The system refused an event queue or a thread.
    #[error("cannot start the workers: {}", reason(.0))]
    Start(#[source] io::Error),
    /// The event queue failed while serving; unfinished transfers are aborted.
    #[error("cannot go on: {}", reason(.0))]
    Serve(#[source] io::Error),
}

impl<K: FileSink> Server<K> {
    /// Settings for a server that keeps its files in `sink`.
    pub fn builder(sink: K) -> ServerBuilder<K> {
        ServerBuilder {
            sink,
            dialect: ServerDialect::default(),
            limits: SessionLimits::default(),
            threading: None,
            workers: None,
            max_connections: None,
            paths: FastPaths::default(),
            admission: Admission::default(),
            #[cfg(feature = "proxy-protocol")]
            proxy_protocol: false,
            first_id: 1,
            on_outcome: Box::new(|_| {}),
        }
    }

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
            #[cfg(all(target_os = "linux", not(accio_portable)))]
            Backend::Reactor { reactor, workers } => reactor.run(workers, &handle),
            Backend::PerSession(threads) => threads.run(&handle),
        }
    }

    /// How it serves: as asked for, or what suits the sink and the system.
    pub fn threading(&self) -> Threading {
        match self.backend {
            #[cfg(all(target_os = "linux", not(accio_portable)))]
            Backend::Reactor { .. } => Threading::Reactor,
            Backend::PerSession(_) => Threading::PerSession,
        }
    }
}

/// Stops the server when a worker leaves, for whatever reason.
#[cfg(all(target_os = "linux", not(accio_portable)))]
struct StopOnDrop<'a>(&'a ServerHandle);

#[cfg(all(target_os = "linux", not(accio_portable)))]
impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl<K> fmt::Debug for ServerBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("dialect", &self.dialect)
            .field("limits", &self.limits)
            .field("threading", &self.threading)
            .field("workers", &self.workers)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
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

impl<K: FileSink> ServerBuilder<K> {
    /// Which dialects it speaks; [`ServerDialect::Auto`] by default.
    pub fn dialect(self, dialect: impl Into<ServerDialect>) -> Self {
        ServerBuilder { dialect: dialect.into(), ..self }
    }

    /// How long a connection may be silent; [`limits::IDLE_TIMEOUT`] by default.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.limits.idle_timeout = idle_timeout;
        self
    }

    /// How large a file may be, in bytes; as large as there is room for by default.
    pub fn max_size(mut self, max_size: u64) -> Self {
        self.limits.max_size = Some(max_size);
        self
    }

    /// How long a transfer may take, however busy it is; as long as it likes by default.
    pub fn max_duration(mut self, max_duration: Duration) -> Self {
        self.limits.max_duration = Some(max_duration);
        self
    }

    /// How many bytes a second a client must send, over [`limits::RATE_WINDOW`]; any number by
    /// default, so that a byte every nine seconds holds a connection for ever.
    pub fn min_rate(mut self, min_rate: u64) -> Self {
        self.limits.min_rate = Some(min_rate);
        self
    }

    /// How connections are shared out among threads. By default, what suits the sink and the
    /// system: see [`Threading`].
    pub fn threading(self, threading: Threading) -> Self {
        ServerBuilder { threading: Some(threading), ..self }
    }

    /// How many threads of the [reactor](Threading::Reactor) serve; one per core by default. One
    /// that is held up by a slow disk holds up one connection. Without effect with a
    /// [thread per session](Threading::PerSession).
    pub fn workers(self, workers: NonZeroUsize) -> Self {
        ServerBuilder { workers: Some(workers), ..self }
    }

    /// How many connections are in service at once; the others wait in the backlog, neither
    /// refused nor greeted. By default, and at most, what the descriptor limit of the process
    /// allows at two descriptors each, and [`limits::MAX_CONNECTIONS`]; with a
    /// [thread per session](Threading::PerSession), [`limits::MAX_THREADS`] by default.
    pub fn max_connections(self, max_connections: NonZeroUsize) -> Self {
        ServerBuilder { max_connections: Some(max_connections), ..self }
    }

    /// How many connections one address may have in service at once; as many as all by default.
    ///
    /// Who is turned away, by this and the rules below, is reset before any greeting and gets no
    /// number: numbers stand for files, and there is none.
    pub fn max_per_ip(mut self, max_per_ip: NonZeroU32) -> Self {
        self.admission.max_per_ip = Some(max_per_ip);
        self
    }

    /// Adds networks that may connect; nobody else may. Without any, everyone may.
    pub fn allow(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.admission.allow.extend(networks);
        self
    }

    /// Adds networks that may not connect, even if they are allowed too.
    pub fn deny(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.admission.deny.extend(networks);
        self
    }

    /// Whether each connection comes from a proxy, such as haproxy, that says in a header of the
    /// PROXY protocol, version 1 or 2, whom it speaks for: that peer is then the one of the rules
    /// above and of the [outcome](Outcome::peer). Off by default.
    ///
    /// The header comes before everything else, the greeting included, and must be complete as
    /// soon as a silent client would be given up. A connection without one, or with one that is
    /// malformed or longer than [`limits::PROXY_HEADER_MAX`], is reset and gets no number; numbers
    /// follow the order in which headers are complete. Where the header names no internet address,
    /// the peer is the proxy. When the proxy speaks for itself, as in a health check of version 2
    /// (`LOCAL`), it is greeted and let go, without a number.
    ///
    /// Whoever can connect can claim any address: let nobody but the proxy.
    #[cfg(feature = "proxy-protocol")]
    pub fn proxy_protocol(self, proxy_protocol: bool) -> Self {
        ServerBuilder { proxy_protocol, ..self }
    }

    /// The number of the first connection; 1 by default.
    pub fn first_id(self, first_id: u64) -> Self {
        ServerBuilder { first_id, ..self }
    }

    /// The kernel's fast paths to try; all by default.
    pub fn fast_paths(self, paths: FastPaths) -> Self {
        ServerBuilder { paths, ..self }
    }

    /// What to call for every connection that ended: after the commit or abort, before the peer
    /// is told. It is called by a worker, which it holds up.
    pub fn on_outcome(self, observer: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        ServerBuilder { on_outcome: Box::new(observer), ..self }
    }

    /// Listens on the first of the addresses that works.
    ///
    /// # Errors
    ///
    /// [`ServerError::Address`] when there is none, [`ServerError::Listen`] when none works, and
    /// those of [`listen`](ServerBuilder::listen).
    pub fn bind(self, addresses: impl ToSocketAddrs) -> Result<Server<K>, ServerError> {
        let none = || io::Error::from(io::ErrorKind::NotFound);
        let mut error = ServerError::Address(none());
        for address in addresses.to_socket_addrs().map_err(ServerError::Address)? {
            match listener::bind(address, true) {
                Ok(socket) => return self.listen(socket),
                Err(source) => error = ServerError::Listen { address, source },
            }
        }
        Err(error)
    }

    /// Listens on all of the addresses. `[::]` is every interface, IPv4 included; beside an IPv4
    /// address it is IPv6 alone.
    ///
    /// # Errors
    ///
    /// [`ServerError::Listen`] for the first that does not work, and those of
    /// [`listen_all`](ServerBuilder::listen_all).
    pub fn bind_all(self, addresses: &[SocketAddr]) -> Result<Server<K>, ServerError> {
        let dual = !addresses.iter().any(SocketAddr::is_ipv4);
        let bind = |address: &SocketAddr| {
            let address = *address;
            listener::bind(address, dual).map_err(|source| ServerError::Listen { address, source })
        };
        let sockets = addresses.iter().map(bind).collect::<Result<_, _>>()?;
        self.listen_all(sockets)
    }

    /// Serves on a socket that listens already, such as one handed over by a supervisor.
    ///
    /// Sets it non-blocking, its `SO_LINGER` on and zero, and its `SO_OOBINLINE`.
    ///
    /// # Errors
    ///
    /// [`ServerError::Timeout`] for a time limit out of range, [`ServerError::Start`] when the
    /// system refuses an event queue.
    pub fn listen(self, socket: TcpListener) -> Result<Server<K>, ServerError> {
        self.listen_all(vec![socket])
    }

    /// The same with several sockets, whose connections are counted together.
    ///
    /// # Errors
    ///
    /// As [`listen`](ServerBuilder::listen), and [`ServerError::Address`] for no socket at all.
    pub fn listen_all(self, sockets: Vec<TcpListener>) -> Result<Server<K>, ServerError> {
        let times = [Some(self.limits.idle_timeout), self.limits.max_duration];
        for time in times.into_iter().flatten() {
            if time.is_zero() || time > limits::MAX_TIMEOUT {
                return Err(ServerError::Timeout(time));
            }
        }
        if sockets.is_empty() {
            return Err(ServerError::Address(io::ErrorKind::NotFound.into()));
        }
        let addresses = sockets.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<io::Result<_>>().map_err(ServerError::Start)?;
        let threading = Threading::choose(self.threading, self.sink.blocks());
        let max_connections = self.max_connections.map_or(threading.default_max(), usize::from);
        let max_connections = max_connections.min(descriptors_for_connections());
        let config = Config {
            dialect: self.dialect,
            limits: self.limits,
            max_connections,
            admission: self.admission,
            #[cfg(feature = "proxy-protocol")]
            proxy_protocol: self.proxy_protocol,
            first_id: self.first_id,
            on_outcome: self.on_outcome,
        };
        let controls = Arc::new(Controls::new().map_err(ServerError::Start)?);
        let handle = ServerHandle { controls: Arc::clone(&controls) };
        let service = Service::new(self.sink, config, self.paths, controls);
        let backend = match threading {
            #[cfg(all(target_os = "linux", not(accio_portable)))]
            Threading::Reactor => {
                let workers = self.workers.or_else(|| std::thread::available_parallelism().ok());
                let workers = workers.map_or(1, NonZeroUsize::get);
                Reactor::new(service, sockets)
                    .map(|reactor| Backend::Reactor { reactor: Box::new(reactor), workers })
            }
            _ => {
                Threads::new(service, sockets).map(|threads| Backend::PerSession(Box::new(threads)))
            }
        };
        Ok(Server { backend: backend.map_err(ServerError::Start)?, addresses, handle })
    }
}

impl Controls {
    fn new() -> io::Result<Self> {
        let (stop, drain) = (Signal::new()?, Signal::new()?);
        Ok(Controls { stop, drain, counters: Counters::default() })
    }
}

impl ServerHandle {
    /// Stops the server: it accepts no more, aborts what is unfinished and returns from
    /// [`Server::run`]. Harmless when it stopped already or has yet to run.
    pub fn stop(&self) {
        self.controls.stop.raise();
    }

    /// Lets the server finish: it listens no more, and returns from [`Server::run`] when the last
    /// connection in service has ended. [`stop`](ServerHandle::stop) still cuts that short.
    pub fn drain(&self) {
        self.controls.drain.raise();
    }

    /// What the server has done so far.
    pub fn stats(&self) -> Stats {
        self.controls.counters.stats()
    }
}

/// How many connections the descriptor limit allows: each may need its socket and its file.
fn descriptors_for_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let descriptors = limit.unwrap_or(u64::MAX).saturating_sub(limits::RESERVED_DESCRIPTORS);
    usize::try_from(descriptors / 2).unwrap_or(usize::MAX).clamp(1, limits::MAX_CONNECTIONS)
}
