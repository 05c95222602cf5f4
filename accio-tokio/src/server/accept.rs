//! Accepting connections, and the end of the server.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_proto::driver::{Accept, Request, Step};
use accio_proto::{FileSink, ServerError};
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{self, Calls};
use super::shared::{Phase, Shared, Task, wait_for};
use crate::registration::{Registration, register};

/// Number of connections accepted before other tasks run.
const BATCH: usize = 16;

/// Pause after the system or the sink had no room for a new connection, and the time for which an
/// answer of the sink is used.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, and its registration.
struct Listener {
    watched: Registration,
    socket: StdListener,
}

/// Returns the main task of a server: it ends after the last connection.
pub(super) fn run<K: FileSink, C: Calls<K>>(
    shared: Arc<Shared<K, C>>,
    listeners: Vec<StdListener>,
) -> Result<impl Task, ServerError> {
    let watch = |request: Request| register(request.as_fd(), Interest::READABLE);
    let stop = watch(shared.driver.stop_request()).map_err(ServerError::Start)?;
    let drain = watch(shared.driver.drain_request()).map_err(ServerError::Start)?;
    let listen = |socket: StdListener| {
        Ok(Listener { watched: register(socket.as_fd(), Interest::READABLE)?, socket })
    };
    let listeners = listeners.into_iter().map(listen).collect::<io::Result<Vec<_>>>();
    let listeners = listeners.map_err(ServerError::Start)?;
    Ok(async move {
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept_all(Arc::clone(&shared), listener));
        }
        let mut failure = None;
        loop {
            tokio::select! {
                biased;
                _ = stop.readable() => break,
                _ = drain.readable(), if *shared.phase.borrow() == Phase::Accepting => {
                    shared.phase.send_replace(Phase::Draining);
                }
                Some(ended) = accepting.join_next() => {
                    if let Ok(Err(error)) = ended {
                        failure = Some(error);
                        break;
                    }
                    if accepting.is_empty() {
                        tokio::select! {
                            _ = stop.readable() => break,
                            () = last_connection(&shared) => return Ok(()),
                        }
                    }
                }
            }
        }
        // The listeners are closed first, so that no client connects to a server that has ended.
        accepting.shutdown().await;
        let driver = shared.driver.clone();
        let _ = shared.calls.call(move || driver.stopping()).await;
        shared.phase.send_replace(Phase::Stopping);
        last_connection(&shared).await;
        failure.map_or(Ok(()), |error| Err(ServerError::Serve(error)))
    })
}

/// Waits until no connection has a place.
async fn last_connection<K: FileSink, C>(shared: &Shared<K, C>) {
    // The semaphore is never closed.
    let _ = shared.places.acquire_many(shared.max_connections).await;
}

/// Accepts connections of one listener until the server drains or stops.
async fn accept_all<K: FileSink, C: Calls<K>>(
    shared: Arc<Shared<K, C>>,
    listener: Listener,
) -> io::Result<()> {
    let mut phase = shared.phase.subscribe();
    let mut room = Room::default();
    loop {
        let next = async {
            let ready = listener.watched.readable().await?;
            room.wait(&shared).await;
            // Not before there is a connection: other listeners need places, too.
            let place = Arc::clone(&shared.places).acquire_owned().await;
            // The semaphore is never closed.
            Ok::<_, io::Error>((ready, place.map_err(io::Error::other)?))
        };
        let (mut ready, place) = tokio::select! {
            biased;
            () = is_ending(&mut phase) => return Ok(()),
            next = next => next?,
        };
        let mut place = Some(place);
        for _ in 0..BATCH {
            // Without a place, connections stay in the backlog.
            let Some(held) =
                place.take().or_else(|| Arc::clone(&shared.places).try_acquire_owned().ok())
            else {
                break;
            };
            match shared.driver.accept(&listener.socket) {
                Accept::Connection(Step::Refused(refused)) => refused.close(),
                Accept::Connection(step) => {
                    tokio::spawn(connection::serve(Arc::clone(&shared), step, held));
                }
                Accept::Nothing => {
                    ready.clear_ready();
                    break;
                }
                Accept::Failed => {}
                Accept::Exhausted => {
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            }
        }
        // Otherwise a steady stream of connections would keep this task running.
        tokio::task::yield_now().await;
    }
}

async fn is_ending(phase: &mut watch::Receiver<Phase>) {
    wait_for(phase, |phase| phase != Phase::Accepting).await;
}

/// The sink's last answer to whether it has room.
#[derive(Default)]
struct Room(Option<Instant>);

impl Room {
    /// Waits until the sink has room for another file.
    async fn wait<K: FileSink, C: Calls<K>>(&mut self, shared: &Arc<Shared<K, C>>) {
        while self.0.is_none_or(|since| since.elapsed() >= PAUSE) {
            let driver = shared.driver.clone();
            if shared.calls.call(move || driver.has_room()).await.unwrap_or(true) {
                self.0 = Some(Instant::now());
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
