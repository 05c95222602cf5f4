//! Finished connections: commit or abort, log, counters, observer and recorder.

use std::time::{Instant, SystemTime};

use super::{Connections, panicked};
use crate::panics::{caught, discard};
use crate::program_log as log;
use crate::server::acknowledgement::Acknowledgement;
use crate::server::connection::{ConnectionInfo, Ending, Peer};
#[cfg(feature = "tracing")]
use crate::server::connection_span::ConnectionSpan;
use crate::server::in_progress::Place;
use crate::server::limit_log::is_operators_rule;
use crate::server::outcome::Outcome;
use crate::server::transport::ServerSocket;
use crate::session::{Abort, Closing, Ended, Unreleased};
use crate::sink::FileSink;

impl<K: FileSink> Connections<K> {
    /// Commits or aborts the file of a connection, then [reports](Connections::report) it.
    pub(in crate::server) fn finish(
        &self,
        ending: Ending<K>,
        release: impl FnOnce(Unreleased<ServerSocket>, bool) + Send + 'static,
    ) -> Option<K::File> {
        #[cfg(feature = "tracing")]
        let span = self.controls.in_progress.span(ending.info.place);
        #[cfg(feature = "tracing")]
        let _in_span = span.as_deref().map(ConnectionSpan::enter);
        let ended = ending.closing.finish(&self.sink);
        self.report(ended, ending.info, release)
    }

    /// Works like [`finish`](Connections::finish), but calls `claim` right before the file or the error
    /// marker becomes visible.
    ///
    /// # Errors
    ///
    /// If `claim` returns false, nothing is stored or reported; returns the discarded file, if any.
    pub(in crate::server) fn finish_if(
        &self,
        ending: Ending<K>,
        claim: &dyn Fn() -> bool,
        release: impl FnOnce(Unreleased<ServerSocket>, bool) + Send + 'static,
    ) -> Result<Option<K::File>, Option<K::File>> {
        #[cfg(feature = "tracing")]
        let span = self.controls.in_progress.span(ending.info.place);
        #[cfg(feature = "tracing")]
        let _in_span = span.as_deref().map(ConnectionSpan::enter);
        let ended = ending.closing.finish_if(&self.sink, claim)?;
        Ok(self.report(ended, ending.info, release))
    }

    /// Commits complete files together, then [reports](Connections::report) each; returns the
    /// discarded ones. A panic in the report of a connection loses only that one.
    pub(in crate::server) fn finish_all(
        &self,
        group: Vec<(Ending<K>, impl FnOnce(Unreleased<ServerSocket>, bool) + Send + 'static)>,
    ) -> Vec<K::File> {
        let (endings, releases): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let (closings, infos): (Vec<_>, Vec<_>) =
            endings.into_iter().map(|Ending { closing, info }| (closing, info)).unzip();
        let finish = || Closing::finish_all(closings, &self.sink, &|_| true);
        let Some(ended) = caught(finish) else {
            infos.into_iter().for_each(|info| self.lose_after_panic(Some(info)));
            return Vec::new();
        };
        let report = |((ended, info), release): ((Option<Ended<_, _>>, _), _)| {
            self.or_lose(info, || self.report(ended?, info, release))
        };
        ended.into_iter().zip(infos).zip(releases).filter_map(report).collect()
    }

    /// Calls `finish`; if it panics, the connection is [lost](Connections::lose).
    pub(in crate::server) fn or_lose(
        &self,
        info: ConnectionInfo,
        finish: impl FnOnce() -> Option<K::File>,
    ) -> Option<K::File> {
        caught(finish).unwrap_or_else(|| {
            self.lose_after_panic(Some(info));
            None
        })
    }

    /// [Loses](Connections::lose) a connection, which may have no number yet. Does not panic.
    pub(in crate::server) fn lose_after_panic(&self, info: Option<ConnectionInfo>) {
        log::error!("a connection was lost to a bug: please report the panic above");
        if let Some(info) = info {
            caught(|| self.lose(info, |why| self.report_unfinished(info, why)));
        }
    }

    /// Reports a finished connection to the log, the counters and the observer. The recorder then
    /// decides when `release` notifies the peer; without a recorder, that happens immediately.
    ///
    /// Returns the discarded file, which should be dropped where that delays no connection.
    pub(in crate::server) fn report(
        &self,
        ended: Ended<ServerSocket, K::File>,
        info: ConnectionInfo,
        release: impl FnOnce(Unreleased<ServerSocket>, bool) + Send + 'static,
    ) -> Option<K::File> {
        let Ended { connection, bytes, digest, result, unmarked, socket, discarded, .. } = ended;
        let kept = result.is_ok();
        let duration = info.since.elapsed();
        let outcome = Outcome {
            connection,
            bytes,
            digest,
            duration,
            ended: SystemTime::now(),
            result,
            unmarked,
        };
        self.record(outcome, info.place, move || release(socket, kept));
        discarded
    }

    /// Ends a connection whose session is stuck in another thread when the server stops: writes the
    /// error marker and reports the connection. The peer sees a reset when the process ends.
    pub(in crate::server) fn abandon(&self, info: ConnectionInfo) {
        self.report_unfinished(info, Abort::Shutdown);
    }

    fn report_unfinished(&self, info: ConnectionInfo, why: Abort) {
        let known = self.controls.in_progress.describe(info.place, info.id);
        let connection = known.unwrap_or_else(|| {
            let mut connection = crate::Connection::new(info.id);
            connection.peer = info.peer;
            connection
        });
        let marked = caught(|| self.sink.mark(&connection))
            .unwrap_or_else(|| Err(std::io::Error::other("the sink panicked")));
        let unmarked = marked.err().inspect(|error| {
            log::error!("connection {}: cannot keep the error marker: {error}", info.id);
        });
        let outcome = Outcome {
            connection,
            bytes: 0,
            digest: None,
            duration: info.since.elapsed(),
            ended: SystemTime::now(),
            result: Err(why),
            unmarked,
        };
        self.record(outcome, info.place, || {});
    }

    /// Ends a connection whose session was lost to a panic: `report`s it with its error marker, and
    /// stops counting it against the limits. Has no effect if the panic came after the report: the peer
    /// may know that its file is stored.
    fn lose(&self, info: ConnectionInfo, report: impl FnOnce(Abort)) {
        let known = self.controls.in_progress.describe(info.place, info.id);
        if known.is_none() && info.place.is_listed() {
            return;
        }
        // If this panics again, there is no report, but nothing else is lost.
        caught(|| report(panicked()));
        self.controls.in_progress.leave(info.place, info.id);
        self.config.admission.leave(info.peer);
        #[cfg(feature = "tls")]
        self.config.identities.leave(known.and_then(|connection| connection.identity).as_ref());
    }

    fn record(&self, outcome: Outcome, place: Place, release: impl FnOnce() + Send + 'static) {
        let (id, bytes) = (outcome.connection.id, outcome.bytes);
        let peer = Peer(outcome.connection.peer);
        match &outcome.result {
            Ok(()) => log::info!("connection {id}: {bytes} bytes from {peer}"),
            Err(why) if is_operators_rule(why) => {
                let (code, now) = (why.code(), Instant::now());
                self.limit_log.log(
                    code,
                    now,
                    format_args!("connection {id}: ERROR: {why} ({peer})"),
                );
            }
            Err(why) if why.is_peer_fault() => log::info!("connection {id}: ERROR: {why} ({peer})"),
            Err(why) => log::warn!("connection {id}: ERROR: {why} ({peer})"),
        }
        #[cfg(feature = "tracing")]
        let span = self.controls.in_progress.span(place);
        #[cfg(feature = "tracing")]
        let _in_span = span.as_deref().map(|span| {
            span.record(&outcome);
            span.enter()
        });
        self.controls.counters.ended(&outcome);
        if caught(|| (self.config.on_outcome)(&outcome)).is_none() {
            log::error!("connection {id}: the observer panicked");
        }
        // This comes after the report, so that an observer never misses a connection in both lists.
        self.controls.in_progress.leave(place, id);
        match &self.config.recorder {
            None => {
                release();
                // An error of the sink may contain values of the program, whose drops may panic.
                discard(outcome);
            }
            Some(recorder) => {
                let acknowledgement = Acknowledgement::new(release);
                if caught(|| recorder(outcome, acknowledgement)).is_none() {
                    log::error!("connection {id}: the recorder panicked");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::panic::resume_unwind;

    use super::*;
    use crate::server::{Server, Threading};
    use crate::sink::MemorySink;

    #[test]
    fn a_lost_connection_frees_its_place_even_if_its_report_panics() {
        let server = Server::builder(MemorySink::new())
            .threading(Threading::Runtime)
            .max_per_ip(NonZeroU32::MIN)
            .bind("127.0.0.1:0")
            .unwrap();
        let connections = server.into_driver().unwrap().0.connections;
        let (peer, now) = (Some(([192, 0, 2, 7], 5000).into()), Instant::now());
        assert!(connections.config.admission.admit(peer, now).is_ok());
        assert!(connections.config.admission.admit(peer, now).is_err(), "it is counted");
        let in_progress = &connections.controls.in_progress;
        let place = in_progress.enter(crate::Connection { peer, ..crate::Connection::new(7) }, now);
        let info = ConnectionInfo { id: 7, peer, since: now, place };
        connections.lose(info, |_| resume_unwind(Box::new("the report panics")));
        assert_eq!(in_progress.iter().count(), 0);
        assert!(connections.config.admission.admit(peer, now).is_ok());
    }
}
