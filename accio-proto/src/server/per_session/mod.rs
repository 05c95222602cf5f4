//! A thread for each session: for sinks whose calls block, and for systems without an event queue.
//!
//! One thread accepts and numbers; it asks the [`Crew`] for a free thread before it accepts, so
//! that a connection that nobody could serve stays in the backlog. Each of the others takes a
//! session, waits with `poll` for its socket, the stop signal or its deadline, and gives it its
//! turns until it ends.

mod thread_pool;

use std::any::Any;
use std::io;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope};
use std::time::Instant;

use super::connections::{Guest, Over, Service, Visit};
use super::error::ServerError;
use super::handle::ServerHandle;
use super::listener::{self, Accepted};
use crate::copier::Copier;
use crate::session::Abort;
use crate::sink::FileSink;
use crate::sys::wait::{is_ready, readable, wait, watched};
use crate::tuning::server::{ACCEPT_BATCH, ACCEPT_RETRY};
use thread_pool::Crew;

/// A server whose sessions have a thread each.
pub(super) struct Threads<K: FileSink> {
    service: Service<K>,
    sockets: Vec<TcpListener>,
}

/// What the threads share while it runs.
struct Running<'a, K: FileSink> {
    service: &'a Service<K>,
    handle: &'a ServerHandle,
    crew: Crew<Guest<K>>,
    /// What the first thread to panic panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// What the accepting thread was woken for.
enum Woken {
    Stop,
    Drain,
    /// A thread has become free, or the rest is over.
    Again,
    /// Somebody may wait at these sockets.
    Sockets(Vec<usize>),
}

impl<K: FileSink> Threads<K> {
    pub(super) fn new(service: Service<K>, sockets: Vec<TcpListener>) -> io::Result<Self> {
        sockets.iter().try_for_each(listener::prepare)?;
        Ok(Threads { service, sockets })
    }

    /// Serves until the server is stopped.
    pub(super) fn run(self, handle: &ServerHandle) -> Result<(), ServerError> {
        let Threads { service, sockets } = self;
        let crew = Crew::new(service.config.max_connections).map_err(ServerError::Start)?;
        let running = Running { service: &service, handle, crew, panic: Mutex::new(None) };
        let served = thread::scope(|scope| {
            // Caught, for the threads must hear of any end, or nobody could wait for theirs.
            let served = catch_unwind(AssertUnwindSafe(|| running.accept_all(scope, &sockets)));
            if !matches!(served, Ok(Ok(()))) {
                handle.stop();
            }
            running.crew.close();
            // Nobody listens from here on; after a drain, those in service may go on.
            drop(sockets);
            running.crew.wait();
            served
        });
        handle.stop();
        let panic = running.panic.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (panic, served) {
            (Some(panic), _) | (None, Err(panic)) => resume_unwind(panic),
            (None, Ok(served)) => served.map_err(ServerError::Serve),
        }
    }
}

impl<K: FileSink> Running<'_, K> {
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
                    self.service.rest(format_args!("cannot start a thread: {error}"));
                    resting = Some(Instant::now() + ACCEPT_RETRY);
                    false
                });
            match self.wait(if is_free { sockets } else { &[] }, resting)? {
                Woken::Stop | Woken::Drain => return Ok(()),
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

    /// Waits for a connection at one of the sockets, for a thread to become free, or until `resting`.
    fn wait(&self, sockets: &[TcpListener], resting: Option<Instant>) -> io::Result<Woken> {
        let controls = &self.service.controls;
        let freed = self.crew.freed();
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
                    self.crew.clear_freed();
                }
                if ready.is_empty() {
                    Woken::Again
                } else {
                    Woken::Sockets(ready.into_iter().map(|(index, _)| index).collect())
                }
            }
        })
    }

    /// Accepts what waits at one socket, up to a batch. Breaks off when it is better to accept
    /// nothing for a while.
    fn accept_batch<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        socket: &TcpListener,
    ) -> ControlFlow<()> {
        let Service { sink, controls, .. } = self.service;
        if !sink.has_room() {
            return self.rest(format_args!("the sink has no room"));
        }
        let mut failed = 0;
        for _ in 0..ACCEPT_BATCH {
            // Without a free thread, whoever waits there is left there.
            if !self.is_free(scope).unwrap_or(false) {
                return ControlFlow::Continue(());
            }
            match listener::accept(socket) {
                Accepted::Connection(socket, peer) => match self.service.receive(socket, peer) {
                    Ok(guest) => self.crew.give(guest),
                    Err(over) => self.service.end(over, |_| {}),
                },
                Accepted::Failed => {
                    log::debug!("a connection failed before it was accepted");
                    controls.counters.accept_error();
                    failed += 1;
                }
                Accepted::Exhausted(error) => {
                    controls.counters.accept_error();
                    return self.rest(format_args!("{error}"));
                }
                Accepted::Nobody => break,
            }
        }
        if failed == ACCEPT_BATCH {
            // Not one connection in so many: whatever it is, asking at full speed does not help.
            return self.rest(format_args!("connections fail before they are accepted"));
        }
        ControlFlow::Continue(())
    }

    fn rest(&self, why: std::fmt::Arguments<'_>) -> ControlFlow<()> {
        self.service.rest(why);
        self.crew.ask();
        ControlFlow::Break(())
    }

    /// Whether a thread is free for one more session.
    fn is_free<'scope, 'env>(&'env self, scope: &'scope Scope<'scope, 'env>) -> io::Result<bool> {
        self.crew.is_free(|| {
            let builder = thread::Builder::new().name("accio-session".to_owned());
            builder.spawn_scoped(scope, || self.work()).map(drop)
        })
    }

    /// A thread: serves one session after another.
    fn work(&self) {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let mut copier = Copier::new(Arc::clone(&self.service.paths));
            while let Some(guest) = self.crew.next() {
                let over = self.serve(guest, &mut copier);
                self.service.end(over, |_| {});
                if !self.crew.done() {
                    break;
                }
            }
        }));
        if let Err(panic) = worked {
            // It takes the others with it, rather than leave a server that serves half.
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            self.handle.stop();
        }
        self.crew.leave();
    }

    /// Serves a connection from its greeting to its end.
    fn serve(&self, guest: Guest<K>, copier: &mut Copier) -> Over {
        let mut visit = self.service.greet(guest);
        loop {
            let guest = match visit {
                Visit::Waiting(guest) => guest,
                Visit::Over(over) => return over,
            };
            visit = match self.wait_for(&guest) {
                Ok(Some(Due::Ready)) => self.service.handle_ready(guest, copier),
                Ok(Some(Due::Late)) => self.service.handle_timeout(guest, copier),
                Ok(None) => return self.service.abort(guest, Abort::Shutdown),
                Err(error) => return self.service.abort(guest, Abort::System(error)),
            };
        }
    }

    /// Waits for what a connection waits for; `None` when the server is stopped.
    fn wait_for(&self, guest: &Guest<K>) -> io::Result<Option<Due>> {
        let mut fds =
            [readable(&self.service.controls.stop), watched(guest.socket(), guest.interest())];
        let ready = wait(&mut fds, Some(guest.deadline(&self.service.config)))?;
        Ok(match is_ready(&fds[0]) {
            true => None,
            false if ready == 0 => Some(Due::Late),
            false => Some(Due::Ready),
        })
    }
}

/// What a session's thread was woken for.
enum Due {
    /// The socket.
    Ready,
    /// The deadline.
    Late,
}
