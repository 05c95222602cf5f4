//! The builder of a server.

mod listen;

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use crate::dialect::ServerDialect;
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::fast_path::FastPaths;
use crate::server::Server;
use crate::server::acknowledgement::Acknowledgement;
use crate::server::admission::Network;
#[cfg(feature = "tls")]
use crate::server::config::HandshakeObserver;
use crate::server::config::{Observer, Recorder, Reviewer};
use crate::server::outcome::Outcome;
use crate::server::review::Review;
use crate::server::server_config::ServerConfig;
use crate::server::threading_mode::Threading;
#[cfg(feature = "tls")]
use crate::server::tls_handshake::{FailedHandshake, Identities};
use crate::sink::FileSink;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;

/// Builds a [`Server`]. Every setting has a default.
#[must_use]
pub struct ServerBuilder<K> {
    sink: K,
    config: ServerConfig,
    paths: FastPaths,
    on_outcome: Observer,
    recorder: Option<Recorder>,
    reviewer: Option<Reviewer>,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    identities: Identities,
    #[cfg(feature = "tls")]
    on_handshake_failure: HandshakeObserver,
}

impl<K: FileSink> Server<K> {
    /// Returns a builder for a server that stores its files in `sink`.
    pub fn builder(sink: K) -> ServerBuilder<K> {
        ServerBuilder {
            sink,
            config: ServerConfig::default(),
            paths: FastPaths::default(),
            on_outcome: Box::new(|_| {}),
            recorder: None,
            reviewer: None,
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
        f.debug_struct("ServerBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<K: FileSink> ServerBuilder<K> {
    /// Sets everything that is a plain value, replacing what was set before.
    pub fn config(self, config: ServerConfig) -> Self {
        ServerBuilder { config, ..self }
    }

    /// Sets the dialects of the server; [`ServerDialect::Auto`] by default.
    pub fn dialect(mut self, dialect: impl Into<ServerDialect>) -> Self {
        self.config.dialect = dialect.into();
        self
    }

    /// Sets how long a connection may be idle; [`limits::IDLE_TIMEOUT`](crate::limits::IDLE_TIMEOUT) by default.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.config.limits.idle_timeout = idle_timeout;
        self
    }

    /// Sets the maximum size of a file in bytes; unlimited by default.
    pub fn max_size(mut self, max_size: u64) -> Self {
        self.config.limits.max_size = Some(max_size);
        self
    }

    /// Sets the maximum duration of a transfer, idle or not; unlimited by default.
    pub fn max_duration(mut self, max_duration: Duration) -> Self {
        self.config.limits.max_duration = Some(max_duration);
        self
    }

    /// Sets the minimum number of bytes per second, measured over [`limits::RATE_WINDOW`](crate::limits::RATE_WINDOW). Off by
    /// default, so that a client can keep a connection open forever by sending a byte every nine
    /// seconds.
    pub fn min_rate(mut self, min_rate: u64) -> Self {
        self.config.limits.min_rate = Some(min_rate);
        self
    }

    /// Sets how connections are distributed among threads. By default, this depends on the sink and
    /// the system: see [`Threading`].
    pub fn threading(mut self, threading: Threading) -> Self {
        self.config.threading = Some(threading);
        self
    }

    /// Sets the number of [reactor](Threading::Reactor) threads that move content; by default one
    /// per core, and at most [`limits::MAX_WORKERS`](crate::limits::MAX_WORKERS). Further threads are started while some are
    /// blocked by a slow disk. No effect with a [thread per session](Threading::PerSession).
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.config.workers = Some(workers);
        self
    }

    /// Sets the maximum number of concurrent connections; further connections wait in the backlog
    /// without a greeting. The default, and the maximum, is what the descriptor limit of the
    /// process allows at two descriptors per connection ([five](Threading::Runtime) with a runtime), three
    /// with a digest, and [`limits::MAX_CONNECTIONS`](crate::limits::MAX_CONNECTIONS). Of the descriptor
    /// limit, 96 are kept back for the server and the rest of the program, and a 64th, at most 128, for
    /// pipes: a limit of 1,024 allows 432 connections. With a [thread per session](Threading::PerSession), the
    /// default is [`limits::MAX_THREADS`](crate::limits::MAX_THREADS).
    pub fn max_connections(mut self, max_connections: NonZeroUsize) -> Self {
        self.config.max_connections = Some(max_connections);
        self
    }

    /// Sets the maximum number of concurrent connections per address. The default is three quarters
    /// of [`max_connections`](Self::max_connections), so that no client can take all of them, but
    /// unlimited below [`limits::SHARED_CONNECTIONS`](crate::limits::SHARED_CONNECTIONS). The addresses of an IPv6 /64 network count as
    /// one, because a single host can use all of them.
    ///
    /// A connection that is refused by this or the following rules is reset before any greeting. It
    /// gets no number, because no file exists for it.
    pub fn max_per_ip(mut self, max_per_ip: NonZeroU32) -> Self {
        self.config.max_per_ip = Some(max_per_ip);
        self
    }

    /// Sets the maximum number of new connections per second and address, or IPv6 /64 network;
    /// unlimited by default.
    pub fn max_new_per_ip(mut self, max_new_per_ip: NonZeroU32) -> Self {
        self.config.max_new_per_ip = Some(max_new_per_ip);
        self
    }

    /// Adds networks that may connect. Without this setting, all networks may; with it, only these.
    pub fn allow(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.config.allow.extend(networks);
        self
    }

    /// Adds networks that may not connect, even if they are also allowed.
    pub fn deny(mut self, networks: impl IntoIterator<Item = Network>) -> Self {
        self.config.deny.extend(networks);
        self
    }

    /// Sets whether each connection comes from a proxy, such as HAProxy, that sends the address of
    /// its client in a header of the PROXY protocol, version 1 or 2. The rules above and the
    /// [outcome](crate::Connection::peer) then use that address. Off by default.
    ///
    /// The header precedes everything else, including the greeting, and must be complete within the
    /// idle timeout. A connection without a header, or with one that is malformed or longer than
    /// [`limits::PROXY_HEADER_MAX`](crate::limits::PROXY_HEADER_MAX), is reset and gets no number; numbers follow the order in which
    /// headers are complete. If the header contains no IP address, the peer is the proxy. A
    /// connection that the proxy makes on its own behalf, such as a health check of version 2
    /// (`LOCAL`), is greeted and closed without a number.
    ///
    /// A header can claim any address, so allow connections from the proxy only.
    pub fn proxy_protocol(mut self, proxy_protocol: bool) -> Self {
        self.config.proxy_protocol = proxy_protocol;
        self
    }

    /// Sets the number of the first connection; 1 by default.
    pub fn first_id(mut self, first_id: u64) -> Self {
        self.config.first_id = first_id;
        self
    }

    /// Sets whether to determine the [local address](crate::Connection::local) of each connection;
    /// true by default. A sink that does not use it saves a system call per connection.
    pub fn local_addresses(mut self, local_addresses: bool) -> Self {
        self.config.local_addresses = local_addresses;
        self
    }

    /// Sets the algorithm of a digest of each file, which is part of its
    /// [outcome](Outcome::digest). No digest is computed by default, because the bytes then pass
    /// through the process instead of being spliced.
    #[cfg(feature = "digest")]
    pub fn digest(mut self, algorithm: DigestAlgorithm) -> Self {
        self.config.digest = Some(algorithm);
        self
    }

    /// Sets the fast paths of the kernel to try; by default all.
    pub fn fast_paths(self, paths: FastPaths) -> Self {
        ServerBuilder { paths, ..self }
    }

    /// Calls `observer` for every finished connection: after the commit or abort, and before the
    /// peer is notified. It must not block, because any thread of the server may call it; use a
    /// [recorder](ServerBuilder::recorder) for work that may block.
    pub fn on_outcome(self, observer: impl Fn(&Outcome) + Send + Sync + 'static) -> Self {
        ServerBuilder { on_outcome: Box::new(observer), ..self }
    }

    /// Passes the outcome of every connection to `recorder`, together with the [`Acknowledgement`]
    /// that notifies its peer.
    ///
    /// The recorder must not block. It can pass both values to another thread, which does slow work
    /// such as writing a line to a journal and then drops the acknowledgement: only this connection
    /// waits.
    pub fn recorder(
        self,
        recorder: impl Fn(Outcome, Acknowledgement) + Send + Sync + 'static,
    ) -> Self {
        ServerBuilder { recorder: Some(Box::new(recorder)), ..self }
    }

    /// Passes each complete file to `reviewer` before it is named and confirmed.
    ///
    /// The reviewer must not block. It may pass the [`Review`] on to another thread, which accepts or
    /// rejects the file at any later time: only that one connection waits. A client waits ten
    /// seconds by default.
    pub fn reviewer(self, reviewer: impl Fn(Review) + Send + Sync + 'static) -> Self {
        ServerBuilder { reviewer: Some(Box::new(reviewer)), ..self }
    }

    /// Serves TLS only, with a rustls configuration, whose `alpn_protocols` should contain
    /// [`ALPN`](crate::tls::ALPN).
    ///
    /// The handshake must be complete within the idle timeout. Until then the connection counts
    /// against the limits but has no number. A failed handshake resets the connection and is
    /// [reported](ServerBuilder::on_handshake_failure). The client's close_notify ends a file, and
    /// the server's confirms it; a file that ends in another way is
    /// [truncated](crate::Abort::Truncated).
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: impl Into<ServerTls>) -> Self {
        ServerBuilder { tls: Some(tls.into()), ..self }
    }

    /// Sets the maximum number of concurrent connections per [identity](crate::Connection::identity). The
    /// handshakes of further connections fail. Unlimited by default; clients without an identity
    /// are never limited.
    #[cfg(feature = "tls")]
    pub fn max_per_identity(mut self, max_per_identity: NonZeroU32) -> Self {
        self.identities.max = Some(max_per_identity);
        self
    }

    /// Calls `observer` for every failed TLS handshake. It must not block, because any thread of the
    /// server may call it, also the one that enforces time limits.
    #[cfg(feature = "tls")]
    pub fn on_handshake_failure(
        self,
        observer: impl Fn(&FailedHandshake) + Send + Sync + 'static,
    ) -> Self {
        ServerBuilder { on_handshake_failure: Box::new(observer), ..self }
    }
}
