//! The span of a connection, for the subscriber of the program.
//!
//! A panic of the subscriber has no effect, whichever of its methods panics. Only spans that a
//! subscriber wants exist.

use std::mem;
use std::sync::Arc;

use tracing::Span;
use tracing::field::{Empty, display};
use tracing::span::Entered;

use crate::connection::Connection;
use crate::program_log::write;
use crate::server::outcome::Outcome;
use crate::session::Abort;

/// A span, which is closed when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSpan(Span);

/// A span that the current thread has entered, and leaves when this is dropped.
pub(super) struct InSpan<'a>(Option<Entered<'a>>);

impl ConnectionSpan {
    /// Creates the span of a connection, unless nothing would observe it. Shared spans need no calls of
    /// the subscriber.
    pub(super) fn new(connection: &Connection) -> Option<Arc<Self>> {
        let peer = connection.peer.map(display);
        let (dialect, bytes, outcome) = (Empty, Empty, Empty);
        let mut span = Span::none();
        write(|| {
            let id = connection.id;
            span = tracing::info_span!("connection", id, peer, dialect, bytes, outcome);
        });
        (!span.is_none()).then(|| Arc::new(ConnectionSpan(span)))
    }

    pub(super) fn enter(&self) -> InSpan<'_> {
        let mut entered = None;
        write(|| entered = Some(self.0.enter()));
        InSpan(entered)
    }

    /// Records the fields that are known at the end of the connection.
    pub(super) fn record(&self, outcome: &Outcome) {
        let code = outcome.result.as_ref().map_or_else(Abort::code, |()| "complete");
        write(|| {
            if let Some(dialect) = outcome.connection.dialect {
                self.0.record("dialect", dialect.name());
            }
            self.0.record("bytes", outcome.bytes).record("outcome", code);
        });
    }
}

impl Drop for ConnectionSpan {
    fn drop(&mut self) {
        let span = mem::replace(&mut self.0, Span::none());
        write(|| drop(span));
    }
}

impl Drop for InSpan<'_> {
    fn drop(&mut self) {
        let entered = self.0.take();
        write(|| drop(entered));
    }
}
