//! The stop of the server.

use std::rc::Rc;

use accio_proto::{Abort, Closing, FileSink};

use super::World;
use crate::connection::{Happening, Stage};
use crate::sink::Kept;
use crate::socket::End;

impl World {
    pub(super) fn stop_all(&mut self) {
        for index in 0..self.connections.len() {
            let stage = &mut self.connections[index].stage;
            match std::mem::replace(stage, Stage::Over) {
                Stage::Live(session) => {
                    self.connections[index].log.lock().unwrap().push(Happening::Stopped);
                    self.close(index, session.abort(Abort::Shutdown));
                }
                stage @ Stage::Closing(_) => self.connections[index].stage = stage,
                Stage::ToCome | Stage::Over => {}
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

    /// The thread that has the session is stuck: the stop leaves the marker without it, and what
    /// the thread does later must not touch that.
    fn abandon(&mut self, index: usize) {
        let closing = self.take_closing(index).expect("it waits for a committer");
        let (id, is_complete) = (closing.id(), closing.is_complete());
        let marked = self.sink.mark(id).is_ok();
        let kept = |world: &World| world.sink.0.lock().unwrap().kept(id).cloned();
        assert_eq!(kept(self), marked.then_some(Kept::Marker));
        let line = Rc::clone(&self.connections[index].line);
        if is_complete && self.random.one_in(2) {
            // It comes back in the middle of a group.
            let all = Closing::finish_all(vec![closing], &self.sink, &|_| false);
            assert!(matches!(all[..], [None]), "it has no result");
        } else {
            drop(closing);
        }
        assert_eq!(kept(self), marked.then_some(Kept::Marker), "the marker was replaced");
        assert_eq!(line.borrow().end, Some(End::Reset));
        *self.ends.entry("abandoned").or_default() += 1;
    }
}
