//! Checks of a session after each of its turns and at its end.

use std::rc::Rc;

use accio_proto::{Abort, Connection as Description, Ended, Interest};

use super::World;
use crate::connection::{Connection, SimEnded, SimSession, Stage, WINDOW};
use crate::judge::{Due, judge};
use crate::oracle;
use crate::plan::{IDLE, Wants};
use crate::sink::StoredFile;
use crate::socket::{End, time};

impl World {
    /// Checks a session that continues.
    pub(super) fn wait(&mut self, index: usize, session: SimSession) {
        let connection = &mut self.connections[index];
        let line = connection.line.borrow();
        let got = &connection.wire[..line.reported.bytes.min(64)];
        let greetings = oracle::expect(self.dialect, got);
        assert!(greetings.sent.starts_with(&line.sent), "sent {:?}", line.sent.escape_ascii());
        if session.interest() == Interest::Read && !line.is_over() {
            assert!(greetings.allows(&line.sent), "nothing waits to be sent, so all of it was");
        }
        drop(line);
        let latest = session.deadline(&self.limits).duration_since(self.start).as_nanos() as u64;
        assert!(latest <= connection.heard + IDLE, "silence may go on for too long");
        if let Some(most) = self.limits.max_duration {
            assert!(latest <= connection.began + most.as_nanos() as u64, "it may take too long");
        }
        if self.limits.min_rate.is_some() {
            assert!(latest <= time(&self.clock) + WINDOW, "it may be slow for too long");
        }
        assert_eq!(session.id(), connection.id);
        connection.stage = Stage::Live(Box::new(session));
    }

    pub(super) fn end(&mut self, index: usize, ended: SimEnded) {
        let connection = &mut self.connections[index];
        connection.stage = Stage::Finished;
        let code = ended.result.as_ref().map_or_else(Abort::code, |()| "kept");
        *self.ends.entry(code).or_default() += 1;
        let line = Rc::clone(&connection.line);
        assert_eq!(line.borrow().end, None, "the peer is notified last");
        #[cfg(feature = "digest")]
        let (digest, algorithm) = (ended.digest, self.digest);
        let Ended {
            connection: Description { id, dialect, .. },
            bytes,
            result,
            unmarked,
            socket,
            ..
        } = ended;
        assert_eq!(id, connection.id);
        socket.release(result.is_ok());
        check_end(connection, result.is_ok());

        let disk = self.sink.0.lock().unwrap();
        let verdict = judge(self.dialect, self.limits.max_size, connection, &line.borrow());
        match (&verdict.due, &result) {
            (Due::Stored(spoken, content), Ok(())) => {
                assert_eq!((dialect, bytes), (Some(*spoken), content.len() as u64));
                assert!(unmarked.is_none());
                #[cfg(feature = "digest")]
                assert_eq!(digest, algorithm.map(|algorithm| oracle::digest(algorithm, content)));
                let line = line.borrow();
                if connection.plan.full == 0 && !line.is_dead() {
                    let due = oracle::expect(self.dialect, &connection.wire);
                    assert!(due.allows(&line.sent), "there was room for all greetings");
                }
                let Some(StoredFile::Complete(kept)) = disk.kept(id) else {
                    panic!("nothing is kept")
                };
                assert_eq!(kept.bytes.len() as u64 + kept.counted, bytes);
                assert!(kept.counted == 0 || connection.plan.wants == Wants::Count);
                assert!(kept.bytes == content[..kept.bytes.len()], "other bytes than were sent");
            }
            (Due::Error(why), Err(error)) => {
                #[cfg(feature = "digest")]
                assert_eq!(digest, None);
                let same = match error {
                    Abort::Idle(_) | Abort::TooLong(_) | Abort::TooSlow { .. } => "late",
                    Abort::TooLarge(_) => "large",
                    Abort::Reset(_) => "reset",
                    Abort::Truncated => "truncated",
                    Abort::Handshake(_) => "handshake",
                    Abort::Sink { action, .. } => action.name(),
                    Abort::Shutdown => "stopped",
                    _ => "?",
                };
                assert_eq!(same, *why, "{error}");
                let marked = disk.kept(id) == Some(&StoredFile::Marker);
                assert_eq!(marked, verdict.marked, "the marker, or the sink refused it too");
                assert_eq!(unmarked.is_none(), marked);
                assert!(!disk.is_complete(id));
            }
            (Due::Stored(..), result) => panic!("to be kept, but it ended as {result:?}"),
            (Due::Error(why), result) => panic!("{why} was due, but it ended as {result:?}"),
        }
    }
}

/// Checks what the client of a connection that has ended can know: the file is stored exactly if it
/// is notified.
fn check_end(connection: &Connection, is_stored: bool) {
    let line = connection.line.borrow();
    let end = if is_stored { End::Fin } else { End::Reset };
    #[cfg(feature = "tls")]
    if line.is_secure() {
        assert_eq!(line.is_confirmed(), line.end == Some(End::Fin));
        // Without room for close_notify, the client is reset although the file is stored.
        if is_stored && (connection.plan.full > 0 || line.is_dead()) {
            return;
        }
    }
    assert_eq!(line.end, Some(end));
}
