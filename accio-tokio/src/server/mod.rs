//! The server: accepts connections and serves each in a task.

mod accept;
mod bridge;
mod calls;
mod connection;
mod copiers;
mod finishing;
mod groups;
mod share;
mod shared;
mod turn_queue;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use accio_proto::{
    FileSink, Server, ServerBuilder, ServerConfig, ServerError, ServerHandle, Threading,
};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::sink::AsyncFileSink;
pub use bridge::{Bridge, BridgeFile};
use calls::{Calls, InBlockingPool, InTask};
use copiers::Copiers;
use groups::Groups;
use shared::{Phase, Shared};
use turn_queue::TurnQueue;

/// A server in the background of the current runtime. Dropping it [stops](ServerHandle::stop) the
/// server, without waiting for the end.
///
/// To let it serve while the program waits for something else, pass a reference to the future of
/// [`ended`](Serving::ended) to `select!` or `timeout`:
///
/// ```
/// # use accio_proto::{MemorySink, ServerConfig};
/// # use std::{pin::pin, time::Duration};
/// # use tokio::{net::TcpListener, time::timeout};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let server = accio_tokio::serve(listener, MemorySink::new(), ServerConfig::default())?;
/// let handle = server.handle();
/// let mut ended = pin!(server.ended());
/// handle.drain();
/// if timeout(Duration::from_secs(30), &mut ended).await.is_err() {
///     handle.stop();
///     ended.await?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it stops the server"]
pub struct Serving {
    handle: ServerHandle,
    addresses: Vec<SocketAddr>,
    task: JoinHandle<Result<(), ServerError>>,
}

/// Receives files on a listening socket, and stores them in `sink`. The calls of the
/// sink may block: they run on the runtime's threads for blocking work.
///
/// # Errors
///
/// Returns [`ServerError::Timeout`] if a time limit is out of range, and [`ServerError::Start`] if
/// the system refuses a descriptor.
///
/// # Panics
///
/// Panics outside of a tokio runtime whose I/O and time are enabled.
pub fn serve<K: FileSink>(
    listener: TcpListener,
    sink: K,
    config: ServerConfig,
) -> Result<Serving, ServerError> {
    serve_with([listener], Server::builder(sink).config(config))
}

/// Works like [`serve`], with everything that a [`ServerBuilder`] can set: observers, a recorder, a
/// reviewer, TLS. Connections of all listeners are numbered together. The builder's threads and
/// workers have no effect.
///
/// # Errors
///
/// Returns the same errors as [`serve`], and [`ServerError::Address`] without any listener.
///
/// # Panics
///
/// Panics outside of a tokio runtime whose I/O and time are enabled.
pub fn serve_with<K: FileSink>(
    listeners: impl IntoIterator<Item = TcpListener>,
    builder: ServerBuilder<K>,
) -> Result<Serving, ServerError> {
    start(listen(listeners, builder)?, InBlockingPool)
}

/// Receives files and stores them in a sink whose calls are asynchronous. No call blocks a thread.
///
/// # Errors
///
/// Returns the same errors as [`serve`].
///
/// # Panics
///
/// Panics outside of a tokio runtime whose I/O and time are enabled.
pub fn serve_async<A: AsyncFileSink>(
    listener: TcpListener,
    sink: A,
    config: ServerConfig,
) -> Result<Serving, ServerError> {
    serve_async_with([listener], sink, |builder| builder.config(config))
}

/// Works like [`serve_async`]; `configure` sets everything that a [`ServerBuilder`] can set, except
/// the sink. A reviewer sees no descriptor.
///
/// # Errors
///
/// Returns the same errors as [`serve_with`].
///
/// # Panics
///
/// Panics outside of a tokio runtime whose I/O and time are enabled.
pub fn serve_async_with<A: AsyncFileSink>(
    listeners: impl IntoIterator<Item = TcpListener>,
    sink: A,
    configure: impl FnOnce(ServerBuilder<Bridge<A>>) -> ServerBuilder<Bridge<A>>,
) -> Result<Serving, ServerError> {
    let builder = configure(Server::builder(Bridge::new(sink)));
    start(listen(listeners, builder)?, InTask)
}

/// Serves an [`accio_proto::Server`] that was built with [`Threading::Runtime`].
///
/// # Errors
///
/// Returns [`ServerError::Start`] if the server was built with another threading mode, or if the
/// system refuses a descriptor.
///
/// # Panics
///
/// Panics outside of a tokio runtime whose I/O and time are enabled.
pub fn spawn<K: FileSink>(server: Server<K>) -> Result<Serving, ServerError> {
    start(server, InBlockingPool)
}

/// Serves an [`accio_proto::Server`] whose sink is a [`Bridge`] to an asynchronous one, and that was
/// built with [`Threading::Runtime`].
///
/// # Errors
///
/// Returns the same errors as [`spawn`].
///
/// # Panics
///
/// Panics outside of a tokio runtime whose I/O and time are enabled.
pub fn spawn_async<A: AsyncFileSink>(server: Server<Bridge<A>>) -> Result<Serving, ServerError> {
    start(server, InTask)
}

fn listen<K: FileSink>(
    listeners: impl IntoIterator<Item = TcpListener>,
    builder: ServerBuilder<K>,
) -> Result<Server<K>, ServerError> {
    let listeners = listeners.into_iter().map(TcpListener::into_std);
    let listeners = listeners.collect::<Result<_, _>>().map_err(ServerError::Start)?;
    builder.threading(Threading::Runtime).listen_all(listeners)
}

fn start<K: FileSink, C: Calls<K>>(server: Server<K>, calls: C) -> Result<Serving, ServerError> {
    let (addresses, handle) = (server.local_addrs().to_vec(), server.handle());
    let (driver, listeners) = server.into_driver()?;
    let max_connections = handle.limits().max_connections.min(Semaphore::MAX_PERMITS);
    let shared = Arc::new(Shared {
        copiers: Copiers::default(),
        turns: TurnQueue::new(thread::available_parallelism().map_or(1, usize::from)),
        commits: Groups::new(),
        places: Arc::new(Semaphore::new(max_connections)),
        phase: watch::Sender::new(Phase::Accepting),
        discarded: AtomicUsize::new(0),
        calls,
        driver,
    });
    let task = tokio::spawn(accept::run(shared, listeners)?);
    Ok(Serving { handle, addresses, task })
}

impl Serving {
    /// Returns the address it listens on; the first one if there are several.
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Returns all addresses it listens on; at least one.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns a handle, which stops or drains the server from any thread, and reports its state.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Stops the server, and waits until every unfinished transfer is aborted and reported. Dropping the
    /// future only ends the wait.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`ended`](Serving::ended).
    pub async fn stop(self) -> Result<(), ServerError> {
        self.handle.stop();
        self.ended().await
    }

    /// Lets running transfers finish, accepts nothing more, and waits for the last one.
    ///
    /// Dropping the future stops the server, so that unfinished transfers are aborted. To limit the time,
    /// see the example of [`Serving`].
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`ended`](Serving::ended).
    pub async fn drain(self) -> Result<(), ServerError> {
        self.handle.drain();
        self.ended().await
    }

    /// Waits until a handle has stopped or drained the server and every outcome is reported. Call
    /// it before the runtime ends: a runtime that is dropped earlier resets all connections and
    /// leaves neither files nor error markers for them.
    ///
    /// Dropping the future stops the server, like dropping [`Serving`]: it is not cancel safe, so poll a
    /// reference to it if something else may be ready first.
    ///
    /// # Errors
    ///
    /// Returns [`ServerError::Serve`] if the runtime fails to watch a socket or ends too early.
    ///
    /// # Panics
    ///
    /// Resumes a panic of the server's task, which would be a bug.
    pub async fn ended(mut self) -> Result<(), ServerError> {
        match (&mut self.task).await {
            Ok(served) => served,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(ServerError::Serve(io::Error::other("the runtime has ended"))),
            },
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
