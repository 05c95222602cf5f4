//! The stop of the server.

use std::rc::Rc;

use accio_proto::{Abort, Closing, Connection, FileSink};

use super::World;
use crate::connection::{LogEntry, Stage};
use crate::sink::StoredFile;
use crate::socket::End;

impl World {
    pub(super) fn stop_all(&mut self) {
        for index in 0..self.connections.len() {
            let stage = &mut self.connections[index].stage;
            match std::mem::replace(stage, Stage::Finished) {
                Stage::Live(session) => {
                    self.connections[index].log.lock().unwrap().push(LogEntry::Stopped);
                    self.close(index, session.abort(Abort::Shutdown));
                }
                stage @ Stage::Closing(_) => self.connections[index].stage = stage,
                Stage::ToCome | Stage::Finished => {}
            }
        }
        for index in 0..self.connections.len() {
            if let Stage::Closing(_) = self.connections[index].stage {
                if self.random.one_in(4) {
                    self.abandon(index);
                } else {
                    self.finish(index);
                }
            }
        }
    }

    /// The thread of the session is blocked: the stop writes the marker without it, and later
    /// actions of the thread must not touch the marker.
    fn abandon(&mut self, index: usize) {
        let closing = self.take_closing(index).expect("it waits for a committer");
        let (id, is_complete) = (closing.id(), closing.is_complete());
        let marked = self.sink.mark(&Connection::new(id)).is_ok();
        let kept = |world: &World| world.sink.0.lock().unwrap().kept(id).cloned();
        assert_eq!(kept(self), marked.then_some(StoredFile::Marker));
        let line = Rc::clone(&self.connections[index].line);
        if is_complete && self.random.one_in(2) {
            // The thread returns while it commits a group.
            let all = Closing::finish_all(vec![closing], &self.sink, &|_| false);
            assert!(matches!(all[..], [None]), "it has no result");
        } else {
            drop(closing);
        }
        assert_eq!(kept(self), marked.then_some(StoredFile::Marker), "the marker was replaced");
        assert_eq!(line.borrow().end, Some(End::Reset));
        *self.ends.entry("abandoned").or_default() += 1;
    }
}
