//! Runs the tests of the blocking server with asynchronous sinks.

use std::io;
use std::sync::Arc;

use accio_proto::{Connection, FileSink, OpenError, SinkFile};
use accio_tokio::{AsyncFileSink, AsyncSinkFile};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{block_in_place, yield_now};

/// Returns a runtime with two threads for tasks.
pub(crate) fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// An asynchronous sink that stores files in a blocking one. Each call waits once, and a call that
/// blocks keeps no other task from running.
pub(crate) struct Asynchronous<K>(Arc<K>);

pub(crate) struct AsynchronousFile<F>(F);

impl<K: FileSink> Asynchronous<K> {
    pub(crate) fn new(sink: K) -> Self {
        Asynchronous(Arc::new(sink))
    }
}

impl<K: FileSink> AsyncFileSink for Asynchronous<K> {
    type File = AsynchronousFile<K::File>;

    async fn open(&self, connection: &Connection) -> Result<Self::File, OpenError> {
        yield_now().await;
        block_in_place(|| self.0.open(connection)).map(AsynchronousFile)
    }

    async fn mark(&self, connection: &Connection) -> io::Result<()> {
        yield_now().await;
        block_in_place(|| self.0.mark(connection))
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn stopping(&self) {
        self.0.stopping();
    }
}

impl<F: SinkFile> AsyncSinkFile for AsynchronousFile<F> {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        yield_now().await;
        block_in_place(|| self.0.write(&bytes))
    }

    async fn commit(&mut self) -> io::Result<()> {
        yield_now().await;
        block_in_place(|| self.0.commit())
    }

    async fn abort(&mut self) -> io::Result<()> {
        yield_now().await;
        block_in_place(|| self.0.abort())
    }
}
