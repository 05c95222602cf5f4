//! A server without threads, for programs that bring their own runtime.
//!
//! The [`Driver`] accepts connections and decides what happens to them; it never waits. Its caller
//! waits for the sockets, with any event loop, and calls it when one is ready or a deadline has
//! passed, as `accio-tokio` does.
//!
//! The life of a connection:
//!
//! ```text
//! accept ─► Live ─► greet ─► wait for its interest or its deadline ─► take_turn ─┐
//!                             ▲                                                  │
//!                             └────────────────── Live ──────────────────────────┤
//!                                                                     Ending ────┴─► finish
//! ```
//!
//! A stop turns each `Live` into an `Ending` by [`abort`](Driver::abort).

mod refused;
mod request;

use std::fmt;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use super::connection::{self, ConnectionInfo, Progress};
use super::connections::Connections;
use super::handle::ServerHandle;
use super::listener::{self, Accepted};
use super::transport::ServerSocket;
use super::under_review::UnderReview;
use crate::copier::Copier;
use crate::interest::Interest;
use crate::program_log as log;
use crate::session::{Abort, Closing};
use crate::sink::FileSink;
use crate::sys::wait;
pub use refused::Refused;
pub use request::Request;

/// A server without threads. Clones refer to the same server. See the [module](self).
pub struct Driver<K: FileSink> {
    pub(super) connections: Arc<Connections<K>>,
    /// Whether commits are faster together.
    groups: bool,
}

/// A connection in service, which waits for its socket, its deadline or its next turn. Dropping it
/// resets the connection without any trace in the sink.
#[must_use]
pub struct Live<K: FileSink>(connection::Connection<K>);

/// A connection whose file must be committed or aborted, by [`Driver::finish`]. Dropping it resets
/// the connection without any trace in the sink.
#[must_use]
pub struct Ending<K: FileSink>(connection::Ending<K>);

/// The state of a connection after a call of the [`Driver`].
#[must_use]
pub enum Step<K: FileSink> {
    /// The connection waits.
    Waiting(Live<K>),
    /// The transfer is complete or has failed; pass the value to [`Driver::finish`].
    Ended(Ending<K>),
    /// The connection ends without a number; call [`Refused::close`].
    Refused(Refused),
}

/// Result of an attempt to accept a connection.
#[must_use]
pub enum Accept<K: FileSink> {
    /// A connection was accepted; call [`Driver::greet`] if it waits.
    Connection(Step<K>),
    /// No connection waits at the socket.
    Nothing,
    /// The connection failed before it was accepted; the next attempt may succeed.
    Failed,
    /// No descriptor, memory or number is left, which was logged; try again later.
    Exhausted,
}

/// Identifies a connection that was lost to a panic of its turn; see [`Driver::abandon`].
#[derive(Debug, Clone, Copy)]
pub struct Lost(Option<ConnectionInfo>);

/// A file under review; see [`Driver::review`].
pub struct Pending<K: FileSink>(Arc<UnderReview<K>>);

impl<K: FileSink> Driver<K> {
    pub(super) fn new(connections: Connections<K>) -> Self {
        let groups = connections.sink.commits_in_groups();
        Driver { connections: Arc::new(connections), groups }
    }

    /// Returns a handle, whose requests the caller must watch: see [`stop_request`](Driver::stop_request).
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(Arc::clone(&self.connections.controls))
    }

    /// Returns the sink.
    pub fn sink(&self) -> &K {
        &self.connections.sink
    }

    /// Returns the request to stop: accept nothing more, tell the sink by
    /// [`stopping`](Driver::stopping), and [abort](Driver::abort) all connections.
    pub fn stop_request(&self) -> Request {
        Request::new(&self.connections.controls, false)
    }

    /// Returns the request to drain: accept nothing more, and end when the last connection has.
    pub fn drain_request(&self) -> Request {
        Request::new(&self.connections.controls, true)
    }

    /// Tells the sink that the server stops. Call it before the connections are
    /// [aborted](Driver::abort). It may block.
    pub fn stopping(&self) {
        self.connections.stopping();
    }

    /// Lets the sink do work that no connection waits for; see [`FileSink::tidy`]. Call it after a
    /// discarded file was dropped. It may block.
    pub fn tidy(&self) {
        self.connections.tidy();
    }

    /// Returns a copier for any number of [turns](Driver::take_turn), one at a time.
    pub fn copier(&self) -> Copier {
        self.connections.copier()
    }

    /// Returns whether the sink has room for another file; see [`FileSink::has_room`]. While it has
    /// not, no connection should be accepted. It may block.
    pub fn has_room(&self) -> bool {
        let has_room = self.connections.has_room();
        if !has_room {
            self.connections.pause(format_args!("no room for files"));
        }
        has_room
    }

    /// Accepts a connection from a socket of [`Server::into_driver`](crate::Server::into_driver), if the
    /// rules of the server admit it.
    pub fn accept(&self, socket: &TcpListener) -> Accept<K> {
        let connections = &self.connections;
        if connections.is_exhausted() {
            return Accept::Exhausted;
        }
        match listener::accept(socket) {
            Accepted::Connection(socket, peer) => {
                let now = Instant::now();
                let decision = connections.decide(peer, now);
                Accept::Connection(connections.receive(socket, peer, decision, now).into())
            }
            Accepted::Nothing => Accept::Nothing,
            Accepted::Failed => {
                log::debug!("a connection failed before it was accepted");
                connections.controls.counters.accept_error();
                Accept::Failed
            }
            Accepted::Exhausted(error) => {
                connections.controls.counters.accept_error();
                connections.pause(format_args!("{error}"));
                Accept::Exhausted
            }
        }
    }

    /// Sends the greeting of a connection that was just accepted, if it is due.
    pub fn greet(&self, live: Live<K>) -> Step<K> {
        self.connections.greet(live.0).into()
    }

    /// Serves a connection whose socket is ready or whose deadline has passed: moves at most about
    /// 1 MiB. Calls the sink, so it may block.
    pub fn take_turn(&self, live: Live<K>, copier: &mut Copier) -> Step<K> {
        self.connections.take_turn(live.0, copier).into()
    }

    /// Ends a connection early, for example with [`Abort::Shutdown`].
    pub fn abort(&self, live: Live<K>, why: Abort) -> Step<K> {
        self.connections.abort(live.0, why).into()
    }

    /// Returns whether a complete file must be [reviewed](Driver::review) before it is finished.
    pub fn reviews(&self) -> bool {
        self.connections.reviews()
    }

    /// Passes a complete file to the reviewer. `decided` is called, on any thread, once there is a
    /// decision; then call [`Pending::take`]. Calls the sink, so it may block.
    ///
    /// # Errors
    ///
    /// Returns the connection if the sink could not prepare the review: the transfer has failed.
    pub fn review(
        &self,
        ending: Ending<K>,
        decided: impl FnOnce() + Send + 'static,
    ) -> Result<Pending<K>, Box<Ending<K>>> {
        match UnderReview::begin(&self.connections, ending.0, decided) {
            Ok(pending) => Ok(Pending(pending)),
            Err(failed) => Err(Box::new(Ending(*failed))),
        }
    }

    /// Commits or aborts the file of a connection, and reports the connection. The recorder of the
    /// server decides when the peer is notified; right before that, on any thread, `released` is
    /// called, because the connection no longer counts, and its result is dropped after that. Calls the
    /// sink, so it may block. Stop watching the socket before: the call may close it.
    ///
    /// Returns the discarded file, whose drop may take long.
    pub fn finish<T>(
        &self,
        ending: Ending<K>,
        released: impl FnOnce() -> T + Send + 'static,
    ) -> Option<K::File> {
        let (connections, info) = (Arc::clone(&self.connections), ending.0.info);
        let release = move |socket, kept| connections.release(socket, kept, info, released);
        self.connections.finish(ending.0, release)
    }

    /// Returns whether the sink commits several files together faster than one after the other; see
    /// [`finish_all`](Driver::finish_all).
    pub fn commits_in_groups(&self) -> bool {
        self.groups
    }

    /// Works like [`finish`](Driver::finish) for each of the connections, but commits their files
    /// together by [`FileSink::commit_all`]. Returns the discarded files. It does not panic: a panic in
    /// the report of a connection [abandons](Driver::abandon) only that one.
    pub fn finish_all<T>(
        &self,
        group: Vec<(Ending<K>, impl FnOnce() -> T + Send + 'static)>,
    ) -> Vec<K::File> {
        let with_release = group.into_iter().map(|(ending, released)| {
            let (connections, info) = (Arc::clone(&self.connections), ending.0.info);
            let release = move |socket, kept| connections.release(socket, kept, info, released);
            (ending.0, release)
        });
        let (complete, failed): (Vec<_>, Vec<_>) =
            with_release.partition(|(ending, _)| ending.closing.is_complete());
        let finish = |(ending, release): (connection::Ending<K>, _)| {
            let connections = &self.connections;
            connections.or_lose(ending.info, || connections.finish(ending, release))
        };
        let mut discarded: Vec<_> = failed.into_iter().filter_map(finish).collect();
        discarded.extend(self.connections.finish_all(complete));
        discarded
    }

    /// Returns the description of a lost connection, if it had a number.
    pub fn describe(&self, lost: &Lost) -> Option<crate::Connection> {
        let info = lost.0.as_ref()?;
        self.connections.controls.in_progress.describe(info.place, info.id)
    }

    /// Reports a connection that was lost because its turn panicked: stores the error marker.
    pub fn abandon(&self, lost: Lost) {
        self.connections.lose_after_panic(lost.0);
    }
}

impl<K: FileSink> Live<K> {
    /// Returns the events to watch the socket for.
    pub fn interest(&self) -> Interest {
        self.0.interest()
    }

    /// Returns when the connection must get a turn even if its socket is not ready.
    pub fn deadline(&self, driver: &Driver<K>) -> Instant {
        self.0.deadline(&driver.connections.config)
    }

    /// Returns whether its next turn calls the sink, and therefore may block.
    pub fn may_block(&self) -> bool {
        matches!(self.0, connection::Connection::Serving(..))
    }

    /// Returns whether the socket is ready now for one of the events of its
    /// [interest](Live::interest). An event queue may report one that an earlier turn has handled.
    pub fn is_ready(&self) -> bool {
        let socket = self.as_fd();
        let mut watched = [wait::watched(&socket, self.interest())];
        // If the call fails, the next turn reports the error.
        !matches!(wait::wait(&mut watched, Some(Instant::now())), Ok(0))
    }

    /// Returns the file, if it is open, for sinks that do their work between two turns.
    pub fn file_mut(&mut self) -> Option<&mut K::File> {
        match &mut self.0 {
            connection::Connection::Serving(session, _) => session.file_mut(),
            _ => None,
        }
    }

    /// Excludes the time since `started` from the idle time: the peer may have been waiting for the
    /// server.
    pub fn resume(&mut self, started: Instant) {
        if let connection::Connection::Serving(session, _) = &mut self.0 {
            session.resume(started, Instant::now());
        }
    }

    /// Returns what [`Driver::abandon`] needs if the next turn panics.
    pub fn lost(&self) -> Lost {
        Lost(self.0.info())
    }
}

impl<K: FileSink> AsFd for Live<K> {
    /// Returns the socket. It is the same descriptor until the end of the connection.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.socket()
    }
}

impl<K: FileSink> Ending<K> {
    /// Returns the description of the connection.
    pub fn connection(&self) -> &crate::Connection {
        self.0.closing.connection()
    }

    /// Returns whether all content was received, so that the file will be committed.
    pub fn is_complete(&self) -> bool {
        self.0.closing.is_complete()
    }

    /// Returns the file, if it is open. The file of an empty upload is opened by
    /// [`open`](Ending::open).
    pub fn file_mut(&mut self) -> Option<&mut K::File> {
        self.closing_mut().file_mut()
    }

    /// Opens the file of an empty upload. If the sink refuses, the transfer has failed.
    pub fn open(&mut self, driver: &Driver<K>) {
        self.closing_mut().open(&driver.connections.sink);
    }

    /// Makes the transfer a failed one.
    pub fn fail(&mut self, why: Abort) {
        self.closing_mut().fail(why);
    }

    /// Returns what [`Driver::abandon`] needs if [`Driver::finish`] panics.
    pub fn lost(&self) -> Lost {
        Lost(Some(self.0.info))
    }

    fn closing_mut(&mut self) -> &mut Closing<ServerSocket, K::File> {
        &mut self.0.closing
    }
}

impl<K: FileSink> Pending<K> {
    /// Returns the connection. Without a decision yet, the transfer fails with [`Abort::Shutdown`].
    pub fn take(self) -> Option<Ending<K>> {
        let mut ending = self.0.take_ending()?;
        match self.0.take_verdict() {
            Some(Ok(())) => {}
            Some(Err(why)) => ending.closing.fail(Abort::Rejected(why)),
            None => ending.closing.fail(Abort::Shutdown),
        }
        Some(Ending(ending))
    }
}

impl<K: FileSink> From<Progress<K>> for Step<K> {
    fn from(progress: Progress<K>) -> Self {
        match progress {
            Progress::Waiting(connection) => Step::Waiting(Live(connection)),
            Progress::Ended(ending) => Step::Ended(Ending(ending)),
            Progress::Unnumbered(unnumbered) => Step::Refused(Refused::new(unnumbered)),
        }
    }
}

impl<K: FileSink> Clone for Driver<K> {
    fn clone(&self) -> Self {
        Driver { connections: Arc::clone(&self.connections), groups: self.groups }
    }
}

/// Implements `Debug` without details for types that hold connections.
macro_rules! debug_opaque {
    ($($name:ident),*) => {$(
        impl<K: FileSink> fmt::Debug for $name<K> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}

debug_opaque!(Driver, Live, Ending, Pending, Step, Accept);
