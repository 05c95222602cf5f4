//! Tests that no peer and no sink keeps a server from serving others or from ending.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

use accio_proto::driver::{Accept, Step};
use accio_proto::{
    Acknowledgement, Connection, FileSink, MemorySink, OpenError, Outcome, Server, ServerConfig,
    ServerError, ServerHandle, SinkFile, Stored, Threading,
};
use accio_tokio::{
    AsyncFileSink, AsyncSinkFile, Serving, serve_async, serve_async_with, serve_with,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::any_sink::AnySink;
use crate::{Memory, MemoryFile, PATIENCE, Sizes, eventually, listen, send, serve};

/// A stop ends although the recorder keeps an acknowledgement, like that of the blocking server.
#[tokio::test]
async fn a_stop_waits_for_no_acknowledgement() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let recorder = {
        let kept = Arc::clone(&kept);
        move |_: Outcome, client: Acknowledgement| kept.lock().unwrap().push(client)
    };
    let builder = Server::builder(AnySink::new(MemorySink::new())).recorder(recorder);
    let server = serve_with([listen().await], builder).unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(b"content").await.unwrap();
    stream.shutdown().await.unwrap();
    eventually(|| !kept.lock().unwrap().is_empty()).await;
    timeout(PATIENCE, server.stop()).await.expect("the server ends").unwrap();
    let mut end = Vec::new();
    kept.lock().unwrap().clear();
    timeout(PATIENCE, stream.read_to_end(&mut end)).await.unwrap().unwrap();
    assert_eq!(end, b"accio\r\n", "confirmed after the server has ended");
}

/// Serves on a runtime with one thread until the test drops the handle, and returns its address.
fn serve_elsewhere(
    mut runtime: tokio::runtime::Builder,
    start: impl FnOnce(TcpListener) -> Serving + Send + 'static,
) -> (std::net::SocketAddr, ServerHandle, mpsc::Receiver<()>) {
    let (started, start_is_done) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let server = start(listen().await);
            started.send((server.local_addr(), server.handle())).unwrap();
            server.ended().await.unwrap();
        });
        let _ = ended.send(());
        runtime.shutdown_background();
    });
    let (address, handle) = start_is_done.recv_timeout(PATIENCE).unwrap();
    (address, handle, end)
}

fn greeted(address: std::net::SocketAddr) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; 7];
    stream.read_exact(&mut greeting).expect("a greeting in time");
    stream
}

/// The thread of the runtime also serves others while the socket and the sink are always ready.
#[test]
fn a_fast_sender_leaves_the_thread_to_others() {
    let (address, handle, end) =
        serve_elsewhere(tokio::runtime::Builder::new_current_thread(), |listener| {
            let sink = Sizes { drops: true, ..Sizes::default() };
            serve_async(listener, sink, ServerConfig::default()).unwrap()
        });
    let fast = greeted(address);
    let sending = std::thread::spawn(move || {
        let content = vec![7; 1 << 20];
        while (&fast).write_all(&content).is_ok() {}
    });
    // Repeat, so that the sender is at full speed at least once.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(100));
        drop(greeted(address));
    }
    handle.stop();
    end.recv_timeout(PATIENCE).expect("the server ends");
    sending.join().unwrap();
}

/// A sink whose first file panics before it returns a future.
#[derive(Clone)]
struct PanicsEarly(Memory);

struct PanicsEarlyFile(MemoryFile);

impl AsyncFileSink for PanicsEarly {
    type File = PanicsEarlyFile;

    async fn open(&self, connection: &Connection) -> Result<PanicsEarlyFile, OpenError> {
        Ok(PanicsEarlyFile(self.0.open(connection).await?))
    }

    async fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.0.mark(connection).await
    }
}

impl AsyncSinkFile for PanicsEarlyFile {
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send {
        assert!(self.0.id != 1, "the call panics");
        self.0.write(bytes)
    }

    async fn commit(&mut self) -> io::Result<()> {
        self.0.commit().await
    }

    async fn abort(&mut self) -> io::Result<()> {
        self.0.abort().await
    }
}

#[tokio::test]
async fn a_call_that_panics_before_its_future_is_a_failed_call() {
    let memory = Memory::default();
    let sink = PanicsEarly(memory.clone());
    let server = serve_async_with([listen().await], sink, |builder| {
        builder.max_per_ip(std::num::NonZeroU32::MIN)
    });
    let server = server.unwrap();
    send(&server, b"content").await.unwrap_err();
    eventually(|| memory.get(1) == Some(Stored::Error)).await;
    // The address no longer counts.
    eventually(|| server.handle().stats().in_service == 0).await;
    send(&server, b"content").await.unwrap();
    assert_eq!(memory.get(2), Some(Stored::Complete(b"content".to_vec())));
    server.stop().await.unwrap();
}

/// A sink that blocks in `write` until it is told to continue.
struct Blocking(Arc<(Mutex<bool>, Condvar)>);

struct BlockingFile(Arc<(Mutex<bool>, Condvar)>);

impl FileSink for Blocking {
    type File = BlockingFile;

    fn open(&self, _: &Connection) -> Result<BlockingFile, OpenError> {
        Ok(BlockingFile(Arc::clone(&self.0)))
    }
}

impl SinkFile for BlockingFile {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        let (continues, changed) = &*self.0;
        drop(changed.wait_while(continues.lock().unwrap(), |continues| !*continues).unwrap());
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn blocked_threads_keep_no_connection_from_its_greeting() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let sink = Blocking(Arc::clone(&gate));
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).max_blocking_threads(1);
    let (address, handle, end) = serve_elsewhere(runtime, move |listener| serve(listener, sink));
    let blocked = greeted(address);
    (&blocked).write_all(b"content").unwrap();
    // The only thread for blocking work is in the sink from now on, at the latest.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        drop(greeted(address));
    }
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    handle.stop();
    end.recv_timeout(PATIENCE).expect("the server ends");
}

/// A drained server ends once all of these results are dropped, so its last peer is notified before.
#[test]
fn the_result_of_a_release_is_dropped_after_the_peer_was_notified() {
    struct Probe(std::net::TcpStream, mpsc::Sender<Vec<u8>>);

    impl Drop for Probe {
        fn drop(&mut self) {
            let mut received = Vec::new();
            if self.0.read_to_end(&mut received).is_ok() {
                let _ = self.1.send(received);
            }
        }
    }

    let builder = Server::builder(AnySink::new(MemorySink::new())).threading(Threading::Runtime);
    let server = builder.bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(server.local_addr()).unwrap();
    // Far longer than a FIN takes on loopback.
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    (&client).write_all(b"content").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (driver, listeners) = server.into_driver().unwrap();
    let mut copier = driver.copier();
    let mut step = loop {
        match driver.accept(&listeners[0]) {
            Accept::Connection(Step::Waiting(live)) => break driver.greet(live),
            Accept::Nothing => std::thread::sleep(Duration::from_millis(1)),
            other => panic!("{other:?}"),
        }
    };
    let ending = loop {
        step = match step {
            Step::Waiting(live) => driver.take_turn(live, &mut copier),
            Step::Ended(ending) => break ending,
            Step::Refused(refused) => panic!("{refused:?}"),
        };
    };
    let (probe, probed) = mpsc::channel();
    drop(driver.finish(ending, move || Probe(client, probe)));
    assert_eq!(probed.recv().expect("the client has the FIN"), b"accio\r\n");
}

#[test]
fn a_runtime_that_ends_too_early_is_an_error() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { serve(listen().await, MemorySink::new()) });
    runtime.shutdown_background();
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = other.block_on(async { timeout(PATIENCE, server.ended()).await });
    assert!(matches!(ended.expect("it ends"), Err(ServerError::Serve(_))));
}

/// Counts the calls of `tidy`.
struct Tidy(MemorySink, Arc<std::sync::atomic::AtomicUsize>);

impl FileSink for Tidy {
    type File = <MemorySink as FileSink>::File;

    fn open(&self, connection: &Connection) -> Result<Self::File, OpenError> {
        self.0.open(connection)
    }

    fn tidy(&self) {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_sink_tidies_up_after_a_failed_upload() {
    let calls = Arc::default();
    let sink = Tidy(MemorySink::new(), Arc::clone(&calls));
    let server = serve(listen().await, sink);
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(b"content").await.unwrap();
    eventually(|| server.handle().connections().any(|upload| upload.bytes > 0)).await;
    server.stop().await.unwrap();
    assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A sink that is slower than its clients, and commits in groups.
struct Slow;

struct SlowFile;

impl FileSink for Slow {
    type File = SlowFile;

    fn open(&self, _: &Connection) -> Result<SlowFile, OpenError> {
        Ok(SlowFile)
    }

    fn commits_in_groups(&self) -> bool {
        true
    }
}

impl SinkFile for SlowFile {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// More transfers than threads, each always with input, leave threads to all other blocking work.
#[test]
fn busy_transfers_leave_threads_to_other_blocking_work() {
    const TRANSFERS: usize = 8;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).max_blocking_threads(2).enable_all().build().unwrap();
    let mut sending = Vec::new();
    runtime.block_on(async {
        let server = serve(listen().await, Slow);
        let (address, handle) = (server.local_addr(), server.handle());
        for _ in 0..TRANSFERS {
            sending.push(std::thread::spawn(move || {
                let stream = greeted(address);
                while (&stream).write_all(&[7; 65_536]).is_ok() {}
            }));
        }
        let busy = || handle.connections().filter(|upload| upload.bytes > 0).count();
        eventually(|| busy() == TRANSFERS).await;
        for _ in 0..3 {
            let work = tokio::task::spawn_blocking(|| ());
            timeout(PATIENCE, work).await.expect("other work gets a thread").unwrap();
        }
        // Its turn, its commit and its report all need a thread.
        send(&server, b"content").await.unwrap();
        assert_eq!(busy(), TRANSFERS);
        timeout(PATIENCE, server.stop()).await.expect("the server ends").unwrap();
    });
    runtime.shutdown_background();
    sending.into_iter().for_each(|thread| thread.join().unwrap());
}
