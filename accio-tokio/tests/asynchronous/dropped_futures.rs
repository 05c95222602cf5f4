//! Tests of futures of a sink that the server drops when it stops.

use std::future::pending;
use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use accio_proto::{Connection, OpenError, Outcome, ServerBuilder, Stored};
use accio_tokio::{AsyncFileSink, AsyncSinkFile, serve_async_with};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{Memory, MemoryFile, PATIENCE, eventually, listen};

/// A sink with a call that never returns. The drop of its future panics.
#[derive(Clone)]
struct Stuck {
    memory: Memory,
    /// Whether the first write hangs, instead of the call that opens the file.
    opens: bool,
    calls: Arc<Mutex<u32>>,
}

struct StuckFile(MemoryFile, Stuck);

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        // Like a panic, but without its message on stderr.
        resume_unwind(Box::new("the drop of a future panics"));
    }
}

impl Stuck {
    async fn hang(&self) {
        let _value = PanicsOnDrop;
        *self.calls.lock().unwrap() += 1;
        pending().await
    }
}

impl AsyncFileSink for Stuck {
    type File = StuckFile;

    async fn open(&self, connection: &Connection) -> Result<StuckFile, OpenError> {
        if !self.opens {
            self.hang().await;
        }
        Ok(StuckFile(self.memory.open(connection).await?, self.clone()))
    }

    async fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.memory.mark(connection).await
    }
}

impl AsyncSinkFile for StuckFile {
    async fn write(&mut self, _: Bytes) -> io::Result<()> {
        self.1.hang().await;
        Ok(())
    }

    async fn commit(&mut self) -> io::Result<()> {
        self.0.commit().await
    }

    async fn abort(&mut self) -> io::Result<()> {
        self.0.abort().await
    }
}

#[tokio::test]
async fn a_future_whose_drop_panics_loses_no_connection() {
    for opens in [false, true] {
        let sink = Stuck { memory: Memory::default(), opens, calls: Arc::default() };
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let observer = {
            let outcomes = Arc::clone(&outcomes);
            move |outcome: &Outcome| outcomes.lock().unwrap().push(outcome.connection.id)
        };
        let configure = |builder: ServerBuilder<_>| builder.on_outcome(observer);
        let server = serve_async_with([listen().await], sink.clone(), configure).unwrap();
        let handle = server.handle();
        let mut client = TcpStream::connect(server.local_addr()).await.unwrap();
        client.write_all(b"content").await.unwrap();
        eventually(|| *sink.calls.lock().unwrap() > 0).await;
        timeout(PATIENCE, server.stop()).await.expect("the server ends").unwrap();

        let end = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(sink.memory.get(1), Some(Stored::Error), "opens: {opens}");
        assert_eq!(*outcomes.lock().unwrap(), [1], "opens: {opens}");
        assert_eq!(handle.stats().in_service, 0);
    }
}
