//! A server's settings, and listening with them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use super::acknowledgement::Acknowledgement;
use super::admission::{Admission, Network};
#[cfg(feature = "tls")]
use super::config::HandshakeObserver;
use super::config::{Config, Observer, Recorder};
use super::connections::Connections;
use super::error::ServerError;
use super::handle::{Controls, ServerHandle};
use super::listener;
use super::outcome::Outcome;
use super::per_session::PerSession;
use super::reactor::Reactor;
use super::server_limits::ServerLimits;
use super::threading_mode::Threading;
#[cfg(feature = "tls")]
use super::tls_handshake::{FailedHandshake, Identities};
use super::{Backend, Server};
use crate::dialect::ServerDialect;
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::fast_path::FastPaths;
use crate::limits;
use crate::session::SessionLimits;
use crate::sink::FileSink;
use crate::sys::process;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;
use crate::tuning::server::RESERVED_DESCRIPTORS;

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
    proxy_protocol: bool,
    first_id: u64,
    #[cfg(feature = "digest")]
    digest: Option<DigestAlgorithm>,
    on_outcome: Observer,
    recorder: Option<Recorder>,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    identities: Identities,
    #[cfg(feature = "tls")]
    on_handshake_failure: HandshakeObserver,
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
            proxy_protocol: false,
            first_id: 1,
            #[cfg(feature = "digest")]
            digest: None,
            on_outcome: Box::new(|_| {}),
            recorder: None,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            identities: Identities::default(),
            #[cfg(feature = "tls")]
            on_handshake_failure: Box::new(|_| {}),
        }
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

    /// How many threads of the [reactor](Threading::Reactor) move content; one per core by default,
    /// at most [`limits::MAX_WORKERS`]. Further ones are started while some are held up by a slow
    /// disk. Without effect with a [thread per session](Threading::PerSession).
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
    /// The addresses of an IPv6 /64 network count as one, for a single host has them all.
    ///
    /// Who is turned away, by this and the rules below, is reset before any greeting and gets no
    /// number: numbers stand for files, and there is none.
    pub fn max_per_ip(mut self, max_per_ip: NonZeroU32) -> Self {
        self.admission.max_per_ip = Some(max_per_ip);
        self
    }

    /// How many connections one address, or IPv6 /64 network, may open in each second; any number
    /// by default.
    pub fn max_new_per_ip(mut self, max_new_per_ip: NonZeroU32) -> Self {
        self.admission.max_new_per_ip = Some(max_new_per_ip);
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
    pub fn proxy_protocol(self, proxy_protocol: bool) -> Self {
        ServerBuilder { proxy_protocol, ..self }
    }

    /// The number of the first connection; 1 by default.
    pub fn first_id(self, first_id: u64) -> Self {
        ServerBuilder { first_id, ..self }
    }

    /// Computes a digest of each file while its bytes pass, for its [outcome](Outcome::digest). None
    /// by default: with one, the bytes pass through the process instead of being spliced.
    #[cfg(feature = "digest")]
    pub fn digest(self, algorithm: DigestAlgorithm) -> Self {
        ServerBuilder { digest: Some(algorithm), ..self }
    }

    /// The kernel's fast paths to try; all by default.
    pub fn fast_paths(self, paths: FastPaths) -> Self {
        ServerBuilder { paths, ..self }
    }

    /// Calls `observer` for every connection that has ended: after the commit or abort, before
    /// the peer is told. It must not block, for it may be called by any thread of the server;
    /// use a [recorder](ServerBuilder::recorder) for work that may.
    pub fn on_outcome(self, observer: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        ServerBuilder { on_outcome: Box::new(observer), ..self }
    }

    /// Passes the outcome of every connection to `recorder`, with the [`Acknowledgement`] that
    /// tells its peer.
    ///
    /// The recorder must not block. It may pass both on to another thread, which does what may
    /// take long, such as writing a line to a journal, and then drops the acknowledgement: only
    /// that one connection waits.
    pub fn recorder(
        self,
        recorder: impl Fn(Outcome, Acknowledgement) + Send + Sync + 'static,
    ) -> Self {
        ServerBuilder { recorder: Some(Box::new(recorder)), ..self }
    }

    /// Serves under TLS alone, by rustls's own configuration. Put [`ALPN`](crate::tls::ALPN) into its
    /// `alpn_protocols`.
    ///
    /// The handshake must be complete within the idle timeout. Until then a connection counts
    /// against the limits and has no number; one that fails is reset and
    /// [reported](ServerBuilder::on_handshake_failure). A file ends with the client's close_notify,
    /// and the server's confirms it; one that ends in another way is
    /// [truncated](crate::Abort::Truncated).
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: impl Into<ServerTls>) -> Self {
        ServerBuilder { tls: Some(tls.into()), ..self }
    }

    /// Limits the connections in service per [identity](Outcome::identity). Further ones fail in
    /// their handshake. Unlimited by default; clients without an identity are never limited.
    #[cfg(feature = "tls")]
    pub fn max_per_identity(mut self, max_per_identity: NonZeroU32) -> Self {
        self.identities.max = Some(max_per_identity);
        self
    }

    /// Calls `observer` for every TLS handshake that has failed. It runs in a worker, which it holds
    /// up.
    #[cfg(feature = "tls")]
    pub fn on_handshake_failure(
        self,
        observer: impl Fn(&FailedHandshake) + Send + Sync + 'static,
    ) -> Self {
        ServerBuilder { on_handshake_failure: Box::new(observer), ..self }
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
                Err(cause) => error = ServerError::Listen { address, cause },
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
            listener::bind(address, dual).map_err(|cause| ServerError::Listen { address, cause })
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
    /// [`ServerError::Timeout`] for a time limit out of range, [`ServerError::Workers`] for too
    /// many workers, [`ServerError::Start`] when the system refuses an event queue.
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
        if let Some(workers) = self.workers
            && workers.get() > limits::MAX_WORKERS
        {
            return Err(ServerError::Workers(workers));
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
            proxy_protocol: self.proxy_protocol,
            first_id: self.first_id,
            #[cfg(feature = "digest")]
            digest: self.digest,
            on_outcome: self.on_outcome,
            recorder: self.recorder,
            #[cfg(feature = "tls")]
            identities: self.identities,
            #[cfg(feature = "tls")]
            on_handshake_failure: self.on_handshake_failure,
        };
        let limits = ServerLimits {
            dialect: config.dialect,
            transfer: config.limits,
            max_connections,
            max_per_ip: config.admission.max_per_ip,
            max_new_per_ip: config.admission.max_new_per_ip,
        };
        let controls = Controls::new(limits).map_err(ServerError::Start)?;
        #[cfg(feature = "tls")]
        let controls = controls.with_tls(self.tls);
        let controls = Arc::new(controls);
        let handle = ServerHandle::new(Arc::clone(&controls));
        let connections = Connections::new(self.sink, config, self.paths, controls);
        let backend = match threading {
            Threading::Reactor => {
                let workers = self.workers.or_else(|| std::thread::available_parallelism().ok());
                let workers = workers.map_or(1, NonZeroUsize::get);
                Reactor::new(connections, sockets, workers)
                    .map(|reactor| Backend::Reactor(Box::new(reactor)))
            }
            Threading::PerSession => PerSession::new(connections, sockets)
                .map(|threads| Backend::PerSession(Box::new(threads))),
        };
        Ok(Server { backend: backend.map_err(ServerError::Start)?, addresses, handle })
    }
}

/// How many connections the descriptor limit allows: each may need its socket and its file.
fn descriptors_for_connections() -> usize {
    let limit = process::descriptor_limit();
    let descriptors = limit.unwrap_or(u64::MAX).saturating_sub(RESERVED_DESCRIPTORS);
    usize::try_from(descriptors / 2).unwrap_or(usize::MAX).clamp(1, limits::MAX_CONNECTIONS)
}
