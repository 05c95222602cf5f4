//! One thread per session, for sinks whose calls block and for systems without an event queue.
//!
//! One thread accepts and numbers connections. It first asks the [`ThreadPool`] for a free thread,
//! so that a connection without a free thread stays in the backlog. Each of the other threads
//! serves one session at a time: it waits with `poll` for the socket, the stop signal or the
//! deadline, and gives the session its turns until it ends.

mod reviewing;
mod thread_pool;

use std::io;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::connection::{Connection, ConnectionInfo, Ending, Progress};
use super::connections::Connections;
use super::error::ServerError;
use super::handle::ServerHandle;
use super::listener::{self, Accepted};
use crate::copier::Copier;
use crate::panics::{caught, discard};
use crate::program_log as log;
use crate::session::Abort;
use crate::sink::FileSink;
use crate::sys::wait::{is_ready, readable, wait, watched};
use crate::tuning::server::{ACCEPT_BATCH, ACCEPT_RETRY};
use thread_pool::ThreadPool;

/// Interval at which a draining server looks for a stop (20 ms): short compared with the second that a
/// stop may take.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

/// A server with one thread per session.
pub(super) struct PerSession<K: FileSink> {
    connections: Arc<Connections<K>>,
    sockets: Vec<TcpListener>,
}

/// State shared by the threads while the server runs.
struct Shared<'a, K: FileSink> {
    connections: &'a Arc<Connections<K>>,
    pool: ThreadPool<Connection<K>>,
}

/// The reason why a thread was woken.
enum Woken {
    Stop,
    Drain,
    /// For the accepting thread: a thread is free, or a pause has ended. For a session: its socket
    /// is ready, or its deadline has passed.
    Again,
    /// Connections may wait at these sockets.
    Sockets(Vec<usize>),
}

impl<K: FileSink> PerSession<K> {
    pub(super) fn new(connections: Connections<K>, sockets: Vec<TcpListener>) -> io::Result<Self> {
        sockets.iter().try_for_each(listener::prepare)?;
        Ok(PerSession { connections: Arc::new(connections), sockets })
    }

    /// Serves until the server is stopped.
    pub(super) fn run(self, handle: &ServerHandle) -> Result<(), ServerError> {
        let PerSession { connections, sockets } = self;
        let pool =
            ThreadPool::new(connections.config.max_connections).map_err(ServerError::Start)?;
        let shared = Shared { connections: &connections, pool };
        let served = thread::scope(|scope| {
            // Panics are caught, because the threads must be notified of any end: otherwise joining
            // them would hang.
            let served = catch_unwind(AssertUnwindSafe(|| shared.accept_all(scope, &sockets)));
            if !matches!(served, Ok(Ok(()))) {
                handle.stop();
            }
            shared.pool.close();
            // From here on the server does not listen. After a drain, sessions in service may
            // continue.
            drop(sockets);
            shared.wait_for_threads();
            served
        });
        connections.stopping();
        handle.stop();
        match served {
            Ok(served) => served.map_err(ServerError::Serve),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl<K: FileSink> Shared<'_, K> {
    /// Accepts until the server is stopped or drained.
    fn accept_all<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        sockets: &[TcpListener],
    ) -> io::Result<()> {
        let mut resting: Option<Instant> = None;
        loop {
            let is_free = resting.is_none()
                && self.is_free(scope).unwrap_or_else(|error| {
                    self.connections.pause(format_args!("cannot start a thread: {error}"));
                    resting = Some(Instant::now() + ACCEPT_RETRY);
                    false
                });
            match self.wait(if is_free { sockets } else { &[] }, resting)? {
                Woken::Stop => {
                    self.connections.stopping();
                    return Ok(());
                }
                Woken::Drain => return Ok(()),
                Woken::Again => resting = None,
                Woken::Sockets(ready) => {
                    for index in ready {
                        if self.accept_batch(scope, &sockets[index]).is_break() {
                            resting = Some(Instant::now() + ACCEPT_RETRY);
                        }
                    }
                }
            }
        }
    }

    /// Waits until all threads have ended. During a drain, the server may be stopped; a thread inside a
    /// call of the sink learns that only from the sink.
    fn wait_for_threads(&self) {
        while !self.pool.wait(STOP_INTERVAL) {
            let mut stop = [readable(&self.connections.controls.stop)];
            if wait(&mut stop, Some(Instant::now())).is_ok_and(|ready| ready > 0) {
                self.connections.stopping();
            }
        }
    }

    /// Waits for a connection at one of the sockets, for a thread to become free, or until
    /// `resting`.
    fn wait(&self, sockets: &[TcpListener], resting: Option<Instant>) -> io::Result<Woken> {
        let controls = &self.connections.controls;
        let freed = self.pool.freed();
        let mut fds = vec![readable(&controls.stop), readable(&controls.drain), readable(&freed)];
        fds.extend(sockets.iter().map(readable));
        wait(&mut fds, resting)?;
        let [stop, drain, freed] = [0, 1, 2].map(|index| is_ready(&fds[index]));
        Ok(match (stop, drain) {
            (true, _) => Woken::Stop,
            (_, true) => Woken::Drain,
            _ => {
                let ready: Vec<_> = (0..).zip(&fds[3..]).filter(|(_, fd)| is_ready(fd)).collect();
                if freed {
                    self.pool.clear_freed();
                }
                if ready.is_empty() {
                    Woken::Again
                } else {
                    Woken::Sockets(ready.into_iter().map(|(index, _)| index).collect())
                }
            }
        })
    }

    /// Accepts a batch of connections from one socket. Breaks off when accepting must pause.
    fn accept_batch<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        socket: &TcpListener,
    ) -> ControlFlow<()> {
        let controls = &self.connections.controls;
        if self.connections.is_exhausted() {
            return ControlFlow::Break(());
        }
        if !self.connections.has_room() {
            return self.rest(format_args!("no room for files"));
        }
        let mut failed = 0;
        for _ in 0..ACCEPT_BATCH {
            // Without a free thread, connections stay in the backlog.
            if !self.is_free(scope).unwrap_or(false) {
                return ControlFlow::Continue(());
            }
            match listener::accept(socket) {
                Accepted::Connection(socket, peer) => {
                    let now = Instant::now();
                    let decision = self.connections.decide(peer, now);
                    match self.connections.receive(socket, peer, decision, now) {
                        Progress::Waiting(connection) => self.pool.assign(connection),
                        Progress::Unnumbered(refused) => refused.close(),
                        Progress::Ended(ending) => self.finish(ending),
                    }
                }
                Accepted::Failed => {
                    log::debug!("a connection failed before it was accepted");
                    controls.counters.accept_error();
                    failed += 1;
                }
                Accepted::Exhausted(error) => {
                    controls.counters.accept_error();
                    return self.rest(format_args!("{error}"));
                }
                Accepted::Nothing => break,
            }
        }
        if failed == ACCEPT_BATCH {
            // The whole batch failed. Whatever the cause, retrying at full speed does not help.
            return self.rest(format_args!("connections fail before they are accepted"));
        }
        ControlFlow::Continue(())
    }

    fn rest(&self, why: std::fmt::Arguments<'_>) -> ControlFlow<()> {
        self.connections.pause(why);
        self.pool.ask();
        ControlFlow::Break(())
    }

    /// Returns whether a thread is free for another session.
    fn is_free<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>) -> io::Result<bool> {
        self.pool.is_free(|| {
            let builder = thread::Builder::new().name("accio-session".to_owned());
            builder.spawn_scoped(scope, || self.work()).map(drop)
        })
    }

    /// Runs a thread, which serves one session after another.
    fn work(&self) {
        let mut copier = self.connections.copier();
        while let Some(connection) = self.pool.next() {
            let mut info = None;
            let serve = || self.serve(connection, &mut copier, &mut info);
            if caught(serve).is_none() {
                self.connections.lose_after_panic(info);
            }
            if !self.pool.done() {
                break;
            }
        }
        self.pool.leave();
    }

    /// Serves a connection from its greeting to its end. Sets `info` once it has a number.
    fn serve(
        &self,
        connection: Connection<K>,
        copier: &mut Copier,
        info: &mut Option<ConnectionInfo>,
    ) {
        *info = connection.info();
        let mut progress = self.connections.greet(connection);
        loop {
            let connection = match progress {
                Progress::Waiting(connection) => {
                    *info = connection.info();
                    connection
                }
                Progress::Ended(ending) => {
                    *info = Some(ending.info);
                    let is_reviewed = self.connections.reviews() && ending.closing.is_complete();
                    return self.finish(if is_reviewed { self.review(ending) } else { ending });
                }
                Progress::Unnumbered(unnumbered) => return unnumbered.close(),
            };
            progress = match self.wait_for(&connection) {
                Ok(Woken::Stop) => {
                    self.connections.stopping();
                    self.connections.abort(connection, Abort::Shutdown)
                }
                Ok(_) => self.connections.take_turn(connection, copier),
                Err(error) => self.connections.abort(connection, Abort::System(error)),
            };
        }
    }

    /// Commits or aborts the file, reports the connection and notifies its peer. Drops a discarded
    /// file last.
    fn finish(&self, ending: Ending<K>) {
        let (connections, info) = (Arc::clone(self.connections), ending.info);
        let release = move |socket, kept| connections.release(socket, kept, info, || ());
        discard(self.connections.finish(ending, release));
    }

    /// Waits for the socket of a connection, its deadline, or the stop.
    fn wait_for(&self, connection: &Connection<K>) -> io::Result<Woken> {
        let stop = readable(&self.connections.controls.stop);
        let socket = connection.socket();
        let mut fds = [stop, watched(&socket, connection.interest())];
        wait(&mut fds, Some(connection.deadline(&self.connections.config)))?;
        Ok(if is_ready(&fds[0]) { Woken::Stop } else { Woken::Again })
    }
}
