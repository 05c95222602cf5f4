//! From a builder to a server that listens.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::ServerBuilder;
#[cfg(feature = "digest")]
use crate::fast_path::FastPath;
use crate::limits;
use crate::program_log as log;
use crate::server::admission::{Admission, default_share};
use crate::server::config::Config;
use crate::server::connections::Connections;
use crate::server::descriptors::Descriptors;
use crate::server::driver::Driver;
use crate::server::error::ServerError;
use crate::server::handle::{Controls, ServerHandle};
use crate::server::listener;
use crate::server::per_session::PerSession;
use crate::server::reactor::Reactor;
use crate::server::server_limits::ServerLimits;
use crate::server::threading_mode::Threading;
use crate::server::{Backend, Server};
use crate::sink::FileSink;

impl<K: FileSink> ServerBuilder<K> {
    /// Listens on the first of the addresses that works.
    ///
    /// # Errors
    ///
    /// Returns [`ServerError::Address`] if there is no address, [`ServerError::Listen`] if none
    /// works, and the errors of [`listen`](ServerBuilder::listen).
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

    /// Listens on all of the addresses. `[::]` means every interface, including IPv4; together with
    /// an IPv4 address it means IPv6 only.
    ///
    /// # Errors
    ///
    /// Returns [`ServerError::Listen`] for the first address that does not work, and the errors of
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

    /// Serves on a socket that listens already, such as one passed by a supervisor.
    ///
    /// Sets the socket to non-blocking mode, its `SO_LINGER` to zero, and its `SO_OOBINLINE`.
    ///
    /// # Errors
    ///
    /// Returns [`ServerError::Timeout`] if a time limit is out of range, [`ServerError::Workers`]
    /// for too many workers, and [`ServerError::Start`] if the system refuses an event queue.
    pub fn listen(self, socket: TcpListener) -> Result<Server<K>, ServerError> {
        self.listen_all(vec![socket])
    }

    /// Serves on several sockets that listen already, and numbers their connections together.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`listen`](ServerBuilder::listen), and [`ServerError::Address`]
    /// without any socket.
    pub fn listen_all(self, sockets: Vec<TcpListener>) -> Result<Server<K>, ServerError> {
        self.config.validate()?;
        if sockets.is_empty() {
            return Err(ServerError::Address(io::ErrorKind::NotFound.into()));
        }
        let addresses = sockets.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<io::Result<_>>().map_err(ServerError::Start)?;
        let threading = Threading::choose(self.config.threading, self.sink.blocks());
        #[cfg(feature = "digest")]
        let reads_back = self.config.digest.is_some() && self.paths.has(FastPath::ReadBack);
        #[cfg(not(feature = "digest"))]
        let reads_back = false;
        let descriptors = Descriptors::of_process(threading, reads_back);
        let max_connections = max_connections(self.config.max_connections, threading, descriptors);
        let mut admission = Admission::default();
        admission.allow = self.config.allow;
        admission.deny = self.config.deny;
        admission.max_per_ip = self.config.max_per_ip.or_else(|| default_share(max_connections));
        admission.is_default_share = self.config.max_per_ip.is_none();
        admission.max_new_per_ip = self.config.max_new_per_ip;
        let config = Config {
            dialect: self.config.dialect,
            limits: self.config.limits,
            max_connections,
            max_pipes: descriptors.max_pipes(max_connections),
            admission,
            proxy_protocol: self.config.proxy_protocol,
            first_id: self.config.first_id,
            local_addresses: self.config.local_addresses,
            #[cfg(feature = "digest")]
            digest: self.config.digest,
            on_outcome: self.on_outcome,
            recorder: self.recorder,
            reviewer: self.reviewer,
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
                let workers =
                    self.config.workers.or_else(|| std::thread::available_parallelism().ok());
                let workers = workers.map_or(1, NonZeroUsize::get);
                Reactor::new(connections, sockets, workers)
                    .map(|reactor| Backend::Reactor(Box::new(reactor)))
            }
            Threading::Runtime => {
                let prepared = sockets.iter().try_for_each(listener::prepare);
                prepared.map(|()| Backend::Runtime(Driver::new(connections), sockets))
            }
            Threading::PerSession => PerSession::new(connections, sockets)
                .map(|threads| Backend::PerSession(Box::new(threads))),
        };
        Ok(Server { backend: backend.map_err(ServerError::Start)?, addresses, handle })
    }
}

/// So few connections (16) that an operator should know, even if no number was requested.
const FEW_CONNECTIONS: usize = 16;

/// Returns the connection limit, and logs if the descriptor limit makes it lower than requested.
fn max_connections(
    requested: Option<NonZeroUsize>,
    threading: Threading,
    descriptors: Descriptors,
) -> usize {
    let wanted = requested.map_or(threading.default_max(), usize::from);
    let wanted = wanted.min(limits::MAX_CONNECTIONS);
    let possible = descriptors.max_connections();
    if wanted > possible && (requested.is_some() || possible < FEW_CONNECTIONS) {
        log::warn!(
            "serving at most {possible} connections instead of {wanted}: each takes up to {} \
             descriptors: raise the descriptor limit (ulimit -n)",
            descriptors.each()
        );
    }
    wanted.min(possible)
}
