//! Accepting connections, and the end of the server.

use std::future::Future;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_proto::driver::{Accept, Request, Step};
use accio_proto::{FileSink, ServerError};
use tokio::io::Interest;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::calls::Calls;
use super::connection::Served;
use super::shared::{Phase, Place, Shared, Task, Unreported, wait_for};
use crate::registration::{Registration, register};

/// Number of connections accepted before other tasks run.
const BATCH: usize = 16;

/// Pause after the system or the sink had no room for a new connection, and the time for which a
/// positive answer of the sink is reused.
const PAUSE: Duration = Duration::from_millis(100);

/// Senders without messages: the receiver notices when all are dropped.
#[derive(Clone)]
struct InService {
    /// Held until each connection is reported.
    unreported: Unreported,
    /// Held until the peer of each connection is notified.
    open: mpsc::Sender<()>,
}

/// Time limit for telling the sink that the server stops, and then for the acknowledgements of the
/// recorder.
const STOP_GRACE: Duration = Duration::from_millis(400);

/// How long accepting waits for the sink to answer whether it has room.
const ROOM_PATIENCE: Duration = Duration::from_millis(200);

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
        let (unreported, mut last_report) = mpsc::channel(1);
        let (open, mut last_open) = mpsc::channel(1);
        let in_service = InService { unreported, open };
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept_all(Arc::clone(&shared), listener, in_service.clone()));
        }
        let mut in_service = Some(in_service);
        let mut failure = None;
        loop {
            tokio::select! {
                biased;
                _ = stop.readable() => break,
                _ = drain.readable(), if *shared.phase.borrow() == Phase::Accepting => {
                    shared.phase.send_replace(Phase::Draining);
                }
                Some(ended) = accepting.join_next() => {
                    match ended {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            failure = Some(error);
                            break;
                        }
                        // A runtime that ends cancels its tasks in any order.
                        Err(error) => return Err(ServerError::Serve(io::Error::other(error))),
                    }
                    if accepting.is_empty() {
                        drop(in_service.take());
                        tokio::select! {
                            _ = stop.readable() => break,
                            _ = last_open.recv() => return Ok(()),
                        }
                    }
                }
            }
        }
        // The listeners are closed first, so that no client connects to a server that has ended.
        accepting.shutdown().await;
        let driver = shared.driver.clone();
        let stopping = shared.calls.call(move || driver.stopping());
        // All threads for blocking work may be stuck.
        let _ = timeout(STOP_GRACE, stopping).await;
        shared.phase.send_replace(Phase::Stopping);
        drop(in_service.take());
        last_report.recv().await;
        // The recorder may keep acknowledgements for any time.
        let _ = timeout(STOP_GRACE, last_open.recv()).await;
        failure.map_or(Ok(()), |error| Err(ServerError::Serve(error)))
    })
}

/// Accepts connections of one listener until the server drains or stops.
async fn accept_all<K: FileSink, C: Calls<K>>(
    shared: Arc<Shared<K, C>>,
    listener: Listener,
    in_service: InService,
) -> io::Result<()> {
    let mut phase = shared.phase.subscribe();
    let mut room = Room::default();
    loop {
        let next = async {
            let ready = listener.watched.readable().await?;
            room.wait(&shared).await;
            // Only once a connection waits, because other listeners need places, too.
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
        let mut failed = 0;
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
                    let InService { unreported, open } = in_service.clone();
                    let place = Place { permit: Arc::new(held), open };
                    let served = Served::new(Arc::clone(&shared), place, unreported);
                    tokio::spawn(async move {
                        let greeted = served.greet(step);
                        served.serve(greeted).await;
                    });
                }
                Accept::Nothing => {
                    ready.clear_ready();
                    break;
                }
                Accept::Failed => failed += 1,
                Accept::Exhausted => {
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            }
        }
        if failed == BATCH {
            // Do not retry at full speed, whatever the cause is.
            tokio::time::sleep(PAUSE).await;
        }
        // Otherwise a steady stream of connections would not let other tasks run.
        tokio::task::yield_now().await;
    }
}

async fn is_ending(phase: &mut watch::Receiver<Phase>) {
    wait_for(phase, |phase| phase != Phase::Accepting).await;
}

/// The sink's last answer to whether it has room, and the call that asks again.
#[derive(Default)]
struct Room {
    last: Option<(Instant, bool)>,
    asking: Option<Pin<Box<dyn Future<Output = bool> + Send>>>,
    /// Whether the answer took too long.
    late: bool,
}

impl Room {
    /// Waits until the sink has room for another file. If it does not answer in time, its last answer
    /// counts, so that a blocked sink does not delay greetings.
    async fn wait<K: FileSink, C: Calls<K>>(&mut self, shared: &Arc<Shared<K, C>>) {
        loop {
            if let (None, Some((since, true))) = (&self.asking, self.last)
                && since.elapsed() < PAUSE
            {
                return;
            }
            let asking = self.asking.get_or_insert_with(|| {
                let shared = Arc::clone(shared);
                Box::pin(async move {
                    let driver = shared.driver.clone();
                    shared.calls.call(move || driver.has_room()).await.unwrap_or(true)
                })
            });
            let limit = if self.late { Duration::ZERO } else { ROOM_PATIENCE };
            match timeout(limit, asking).await {
                Ok(has_room) => {
                    self.asking = None;
                    self.last = Some((Instant::now(), has_room));
                    self.late = false;
                    if !has_room {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Err(_) if self.last.is_none_or(|(_, has_room)| has_room) => {
                    self.late = true;
                    return;
                }
                Err(_) => {}
            }
        }
    }
}
