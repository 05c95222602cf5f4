//! Connects a session, whose calls do not wait, to an asynchronous sink: a turn collects bytes in
//! a buffer, and the sink stores them after the turn. The file is committed or aborted before the
//! session asks for it, which then only gets the result.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use accio_proto::driver::Ending;
use accio_proto::{Abort, Connection, FileSink, OpenError, SinkCall, SinkFile, panics};
use bytes::{Bytes, BytesMut};

use crate::sink::{AsyncFileSink, AsyncSinkFile};

/// Makes an asynchronous sink the sink of an [`accio_proto::Server`], which then must be served by
/// [`spawn_async`](crate::spawn_async).
pub struct Bridge<A> {
    sink: A,
    /// Results of marks, until the session asks for them.
    marks: Mutex<HashMap<u64, io::Result<()>>>,
}

/// A file of a [`Bridge`].
pub struct BridgeFile<A: AsyncFileSink> {
    connection: Connection,
    /// Bytes of the last turn.
    pending: BytesMut,
    file: Option<A::File>,
    /// The result of the commit, until the session asks for it.
    result: Option<io::Result<()>>,
    /// Whether the abort has succeeded.
    aborted: bool,
}

impl<A: AsyncFileSink> Bridge<A> {
    /// Returns the sink for a server.
    pub fn new(sink: A) -> Self {
        Bridge { sink, marks: Mutex::default() }
    }

    /// Commits or aborts the file of a connection that ends.
    pub(super) async fn end(&self, ending: &mut Ending<Self>) {
        let is_complete = ending.is_complete();
        let connection = ending.connection().clone();
        if let Some(file) = ending.file_mut()
            && let Some(inner) = &mut file.file
        {
            if is_complete {
                let committed =
                    caught(async { inner.commit().await }).await.and_then(|committed| committed);
                if committed.is_ok() {
                    file.result = Some(committed);
                    return;
                }
                file.result = committed.err().map(Err);
            }
            // After a failed commit, the session asks for the abort.
            match caught(async { inner.abort().await }).await.and_then(|aborted| aborted) {
                Ok(()) => {
                    file.aborted = true;
                    return;
                }
                // An error of the sink may contain values whose drops panic.
                Err(error) => panics::discard(error),
            }
        }
        self.mark_later(&connection).await;
    }

    /// Marks a connection, for the session to ask for the result.
    pub(super) async fn mark_later(&self, connection: &Connection) {
        let marked = caught(async { self.sink.mark(connection).await });
        let marked = marked.await.and_then(|marked| marked);
        self.marks().insert(connection.id, marked);
    }

    fn marks(&self) -> MutexGuard<'_, HashMap<u64, io::Result<()>>> {
        // Each access is a single operation, so the map is consistent even after a panic elsewhere.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: AsyncFileSink> FileSink for Bridge<A> {
    type File = BridgeFile<A>;

    fn open(&self, connection: &Connection) -> Result<BridgeFile<A>, OpenError> {
        let connection = connection.clone();
        Ok(BridgeFile {
            connection,
            pending: BytesMut::new(),
            file: None,
            result: None,
            aborted: false,
        })
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        let marked = self.marks().remove(&connection.id);
        marked.unwrap_or_else(|| Err(io::Error::other("the connection was lost")))
    }

    fn has_room(&self) -> bool {
        self.sink.has_room()
    }

    fn stopping(&self) {
        self.sink.stopping();
    }
}

impl<A: AsyncFileSink> BridgeFile<A> {
    /// Returns whether the last turn has left bytes to store.
    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Stores the bytes of the last turn; opens the file before the first ones.
    pub(super) async fn work(&mut self, bridge: &Bridge<A>) -> Result<(), Abort> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = caught(async { bridge.sink.open(&self.connection).await }).await;
                let opened = opened.map_err(OpenError::Failed).and_then(|opened| opened);
                self.file.insert(opened.map_err(|error| match error {
                    OpenError::Rejected(why) => Abort::Rejected(why),
                    error => Abort::Sink { action: SinkCall::Open, cause: error.into() },
                })?)
            }
        };
        if self.pending.is_empty() {
            return Ok(());
        }
        // Take the buffer, too: a connection that waits for its peer must not hold one.
        let bytes: Bytes = std::mem::take(&mut self.pending).freeze();
        let written = caught(async { file.write(bytes).await }).await.and_then(|written| written);
        written.map_err(|cause| Abort::Sink { action: SinkCall::Write, cause })
    }
}

impl<A: AsyncFileSink> SinkFile for BridgeFile<A> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stored = match &mut self.file {
            Some(file) if self.pending.is_empty() => file.try_write(bytes),
            _ => 0,
        };
        self.pending.extend_from_slice(&bytes[stored..]);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= A::File::WRITE
    }

    fn commit(&mut self) -> io::Result<()> {
        self.result.take().unwrap_or_else(|| Err(io::Error::other("the connection was lost")))
    }

    fn abort(&mut self) -> io::Result<()> {
        match self.aborted {
            true => Ok(()),
            // The result of the mark follows.
            false => Err(io::Error::other("not aborted")),
        }
    }
}

/// Turns a panic of a sink into an error of one call, so that only one connection ends. The future
/// must contain the call: a function that returns a future may panic before.
async fn caught<T>(call: impl Future<Output = T>) -> io::Result<T> {
    let mut call = Discarding(pin!(Some(call)));
    poll_fn(|context| {
        // After a panic the future is not polled again, and the file is only aborted and dropped.
        let poll = || call.0.as_mut().as_pin_mut().map_or(Poll::Pending, |call| call.poll(context));
        match panics::caught_with(poll, panics::message) {
            Ok(poll) => poll.map(Ok),
            Err(message) => {
                Poll::Ready(Err(io::Error::other(format!("the sink panicked: {message}"))))
            }
        }
    })
    .await
}

/// A future of the program, which is there until the drop of this value. Its own drop may panic.
struct Discarding<'a, F>(Pin<&'a mut Option<F>>);

impl<F> Drop for Discarding<'_, F> {
    fn drop(&mut self) {
        panics::caught(|| self.0.set(None));
    }
}

impl<A> fmt::Debug for Bridge<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").finish_non_exhaustive()
    }
}

impl<A: AsyncFileSink> fmt::Debug for BridgeFile<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeFile")
            .field("connection", &self.connection.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drops everything.
    struct Nothing;

    impl AsyncFileSink for Nothing {
        type File = Nothing;

        async fn open(&self, _: &Connection) -> Result<Nothing, OpenError> {
            Ok(Nothing)
        }

        async fn mark(&self, _: &Connection) -> io::Result<()> {
            Ok(())
        }
    }

    impl AsyncSinkFile for Nothing {
        async fn write(&mut self, _: Bytes) -> io::Result<()> {
            Ok(())
        }

        async fn commit(&mut self) -> io::Result<()> {
            Ok(())
        }

        async fn abort(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_file_that_waits_for_its_peer_holds_no_buffer() {
        let bridge = Bridge::new(Nothing);
        let mut file = bridge.open(&Connection::new(1)).unwrap();
        file.write(&vec![7; 1 << 20]).unwrap();
        assert!(file.is_full() && file.has_work());
        file.work(&bridge).await.unwrap();
        assert!(!file.is_full());
        assert_eq!(file.pending.capacity(), 0);
    }
}
