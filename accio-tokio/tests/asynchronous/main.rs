//! Tests of asynchronous sinks and of the client.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../../accio-proto/tests/server/any_sink.rs"]
mod any_sink;
#[path = "../../../accio-proto/tests/server/broken_logger.rs"]
mod broken_logger;
mod discarded_files;
mod dropped_futures;
mod groups;
mod liveness;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use accio_proto::{ClientError, Connection, FileSink, MemorySink, OpenError, ServerConfig, Stored};
use accio_tokio::{AsyncFileSink, AsyncSinkFile, Client, Serving, serve_async};
use any_sink::AnySink;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Maximum duration of any wait in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sink in memory whose calls wait for a permit, if it has a gate.
#[derive(Clone, Default)]
struct Memory {
    files: Arc<Mutex<BTreeMap<u64, Stored>>>,
    gate: Option<Arc<Semaphore>>,
    fails: Fails,
}

/// The call that fails, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fails {
    #[default]
    Nothing,
    Rejects,
    WritePanics,
    Commit,
    CommitAndAbort,
}

struct MemoryFile {
    id: u64,
    content: Vec<u8>,
    sink: Memory,
}

impl Memory {
    fn get(&self, id: u64) -> Option<Stored> {
        self.files.lock().unwrap().get(&id).cloned()
    }
}

impl AsyncFileSink for Memory {
    type File = MemoryFile;

    async fn open(&self, connection: &Connection) -> Result<MemoryFile, OpenError> {
        tokio::task::yield_now().await;
        if self.fails == Fails::Rejects {
            return Err(OpenError::rejected(format!("not from {}", connection.peer.unwrap().ip())));
        }
        Ok(MemoryFile { id: connection.id, content: Vec::new(), sink: self.clone() })
    }

    async fn mark(&self, connection: &Connection) -> io::Result<()> {
        tokio::task::yield_now().await;
        self.files.lock().unwrap().insert(connection.id, Stored::Error);
        Ok(())
    }
}

impl AsyncSinkFile for MemoryFile {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        if let Some(gate) = &self.sink.gate {
            gate.acquire().await.unwrap().forget();
        }
        assert!(self.sink.fails != Fails::WritePanics, "the write panics");
        self.content.extend_from_slice(&bytes);
        Ok(())
    }

    async fn commit(&mut self) -> io::Result<()> {
        tokio::task::yield_now().await;
        if matches!(self.sink.fails, Fails::Commit | Fails::CommitAndAbort) {
            return Err(io::Error::other("the store is gone"));
        }
        let content = Stored::Complete(std::mem::take(&mut self.content));
        self.sink.files.lock().unwrap().insert(self.id, content);
        Ok(())
    }

    async fn abort(&mut self) -> io::Result<()> {
        if self.sink.fails == Fails::CommitAndAbort {
            return Err(io::Error::other("the store is gone"));
        }
        self.sink.files.lock().unwrap().insert(self.id, Stored::Error);
        Ok(())
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Serves with a blocking sink and the default configuration.
fn serve(listener: TcpListener, sink: impl FileSink) -> Serving {
    accio_tokio::serve(listener, AnySink::new(sink), ServerConfig::default()).unwrap()
}

async fn start(sink: &Memory) -> Serving {
    serve_async(listen().await, sink.clone(), ServerConfig::default()).unwrap()
}

async fn send(server: &Serving, content: &[u8]) -> Result<(), ClientError> {
    let sent = Client::default().send("127.0.0.1", server.local_addr().port(), content);
    let sent = timeout(PATIENCE, sent).await.expect("the upload ends")?;
    assert!(sent.confirmed);
    assert_eq!(sent.bytes, content.len() as u64);
    Ok(())
}

/// Waits until a condition holds.
async fn eventually(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the condition holds in time");
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[tokio::test]
async fn stores_files_of_every_size() {
    let sink = Memory::default();
    let server = start(&sink).await;
    for (id, length) in (1..).zip([0, 1, 65_535, 65_536, 65_537, 5 << 20]) {
        let content = content(length);
        send(&server, &content).await.unwrap();
        assert_eq!(sink.get(id), Some(Stored::Complete(content)), "{length} bytes");
    }
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_many_files_at_once() {
    let sink = Memory::default();
    let server = start(&sink).await;
    let port = server.local_addr().port();
    let upload = |index: usize| async move {
        let content = content(index * 1000);
        Client::default().send("127.0.0.1", port, &content[..]).await
    };
    let uploads: Vec<_> = (0..100).map(|index| tokio::spawn(upload(index))).collect();
    for upload in uploads {
        assert!(timeout(PATIENCE, upload).await.unwrap().unwrap().unwrap().confirmed);
    }
    let files = sink.files.lock().unwrap().clone();
    let mut lengths: Vec<_> = files
        .values()
        .map(|stored| match stored {
            Stored::Complete(found) => {
                assert_eq!(*found, content(found.len()));
                found.len() / 1000
            }
            Stored::Error => panic!("an error"),
        })
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failed_call_leaves_the_marker_and_resets() {
    for fails in [Fails::Rejects, Fails::WritePanics, Fails::Commit, Fails::CommitAndAbort] {
        let sink = Memory { fails, ..Memory::default() };
        let server = start(&sink).await;
        let error = send(&server, b"content").await.unwrap_err();
        assert!(
            matches!(error, ClientError::NotKept { .. } | ClientError::Reset { .. }),
            "{fails:?}: {error}"
        );
        eventually(|| sink.get(1) == Some(Stored::Error)).await;
        let stats = server.handle().stats();
        assert_eq!((stats.completed, stats.failed), (0, 1), "{fails:?}");
    }
}

#[tokio::test]
async fn a_reset_connection_leaves_the_marker() {
    let sink = Memory::default();
    let server = start(&sink).await;
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.read_exact(&mut [0; 7]).await.unwrap();
    stream.write_all(b"half").await.unwrap();
    eventually(|| server.handle().connections().any(|upload| upload.bytes == 4)).await;
    let stream = stream.into_std().unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    eventually(|| sink.get(1) == Some(Stored::Error)).await;
}

/// The write waits when the server stops: it is dropped, and the marker follows.
#[tokio::test]
async fn a_stop_interrupts_a_write() {
    let gate = Arc::new(Semaphore::new(0));
    let sink = Memory { gate: Some(gate), ..Memory::default() };
    let server = start(&sink).await;
    let handle = server.handle();
    let port = server.local_addr().port();
    let upload =
        tokio::spawn(
            async move { Client::default().send("127.0.0.1", port, &b"content"[..]).await },
        );
    eventually(|| handle.connections().any(|upload| upload.bytes == 7)).await;
    timeout(PATIENCE, server.stop()).await.expect("the write does not delay it").unwrap();
    assert_eq!(sink.get(1), Some(Stored::Error));
    assert!(upload.await.unwrap().is_err());
}

#[tokio::test]
async fn time_in_the_sink_is_not_idle_time() {
    let gate = Arc::new(Semaphore::new(0));
    let sink = Memory { gate: Some(Arc::clone(&gate)), ..Memory::default() };
    let mut config = ServerConfig::default();
    config.limits.idle_timeout = Duration::from_secs(2);
    let server = serve_async(listen().await, sink.clone(), config).unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.read_exact(&mut [0; 7]).await.unwrap();
    stream.write_all(b"content").await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sink.get(1), None);
    gate.add_permits(10);
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap(), 0, "a FIN");
    assert_eq!(sink.get(1), Some(Stored::Complete(b"content".to_vec())));
}

#[tokio::test]
async fn a_drain_waits_for_running_transfers() {
    let files = MemorySink::new();
    let server = serve(listen().await, files.clone());
    let (address, handle) = (server.local_addr(), server.handle());
    let (mut writer, reader) = tokio::io::duplex(64);
    let upload =
        tokio::spawn(
            async move { Client::default().send("127.0.0.1", address.port(), reader).await },
        );
    writer.write_all(b"first ").await.unwrap();
    eventually(|| handle.connections().any(|upload| upload.bytes == 6)).await;
    let ended = tokio::spawn(server.drain());
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it stops listening");
    assert!(!ended.is_finished());
    writer.write_all(b"second").await.unwrap();
    drop(writer);
    assert!(timeout(PATIENCE, upload).await.unwrap().unwrap().unwrap().confirmed);
    timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    assert_eq!(files.get(1), Some(Stored::Complete(b"first second".to_vec())));
}

#[tokio::test]
async fn dropping_the_server_stops_it() {
    let files = MemorySink::new();
    let server = serve(listen().await, files.clone());
    let (address, handle) = (server.local_addr(), server.handle());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.read_exact(&mut [0; 7]).await.unwrap();
    drop(server);
    let error = timeout(PATIENCE, stream.read(&mut [0])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    eventually(|| files.get(1) == Some(Stored::Error)).await;
    assert_eq!(handle.stats().failed, 1);
}

/// The client notices a reset although its reader never returns.
#[tokio::test]
async fn the_client_watches_the_server_while_its_reader_is_pending() {
    let files = MemorySink::new();
    let mut config = ServerConfig::default();
    config.limits.idle_timeout = Duration::from_secs(1);
    let server = accio_tokio::serve(listen().await, AnySink::new(files.clone()), config).unwrap();
    let (mut writer, reader) = tokio::io::duplex(64);
    writer.write_all(b"half").await.unwrap();
    let sent = Client::default().send("127.0.0.1", server.local_addr().port(), reader);
    let error = timeout(PATIENCE, sent).await.expect("it does not wait").unwrap_err();
    assert!(matches!(error, ClientError::Reset { .. }), "{error}");
    assert_eq!(files.get(1), Some(Stored::Error));
}

#[tokio::test]
async fn a_dropped_upload_is_reset() {
    let files = MemorySink::new();
    let server = serve(listen().await, files.clone());
    let (mut writer, reader) = tokio::io::duplex(64);
    writer.write_all(b"half").await.unwrap();
    let port = server.local_addr().port();
    let upload =
        tokio::spawn(async move { Client::default().send("127.0.0.1", port, reader).await });
    let handle = server.handle();
    eventually(|| handle.connections().any(|upload| upload.bytes == 4)).await;
    upload.abort();
    eventually(|| files.get(1) == Some(Stored::Error)).await;
}

#[tokio::test]
async fn a_failed_read_is_reset() {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Err(io::Error::other("the tape broke")))
        }
    }
    let files = MemorySink::new();
    let server = serve(listen().await, files.clone());
    let sent = Client::default().send("127.0.0.1", server.local_addr().port(), Broken);
    let error = timeout(PATIENCE, sent).await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Read { .. }), "{error}");
    eventually(|| files.get(1) == Some(Stored::Error)).await;
}

/// Content, and the sizes of the calls that stored it.
#[derive(Clone, Default)]
struct Sizes {
    stored: Arc<Mutex<(Vec<u8>, Vec<usize>)>>,
    /// Whether it keeps nothing, and is always ready.
    drops: bool,
}

/// Takes a few bytes of each read immediately and the rest in calls of about 16 KiB.
impl AsyncFileSink for Sizes {
    type File = Sizes;

    async fn open(&self, _: &Connection) -> Result<Sizes, OpenError> {
        Ok(self.clone())
    }

    async fn mark(&self, _: &Connection) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncSinkFile for Sizes {
    const WRITE: usize = 16 << 10;

    fn try_write(&mut self, bytes: &[u8]) -> usize {
        if self.drops {
            return bytes.len();
        }
        let count = bytes.len().min(1000);
        self.stored.lock().unwrap().0.extend_from_slice(&bytes[..count]);
        count
    }

    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        if self.drops {
            return Ok(());
        }
        tokio::task::yield_now().await;
        let mut stored = self.stored.lock().unwrap();
        stored.0.extend_from_slice(&bytes);
        stored.1.push(bytes.len());
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
async fn a_connection_holds_only_what_the_sink_asks_for() {
    let sink = Sizes::default();
    let server = serve_async(listen().await, sink.clone(), ServerConfig::default()).unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index / 7) as u8).collect();
    send(&server, &content).await.unwrap();
    server.stop().await.unwrap();
    let stored = sink.stored.lock().unwrap();
    assert!(stored.0 == content, "the order of the bytes");
    assert!(stored.1.iter().all(|size| *size < (16 << 10) + (64 << 10)), "{:?}", stored.1);
}
