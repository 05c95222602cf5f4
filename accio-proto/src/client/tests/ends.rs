//! Tests of the end of a transfer: resets, closes, confirmations.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::client::watch::{Watch, Watcher};

/// Sends a file that is larger than all buffers, on both paths, to a peer that ends the connection
/// early.
fn ended_mid_file(end: fn(TcpStream)) -> Vec<ClientError> {
    let paths = [FastPaths::default(), FastPaths::without([FastPath::Sendfile])];
    let errors = paths.into_iter().map(|paths| {
        let peer = Peer::new(move |mut stream| {
            greet(&mut stream, Dialect::Accio);
            stream.read_exact(&mut [0; 100_000]).unwrap();
            end(stream);
        });
        let client = builder().fast_paths(paths).build().unwrap();
        let start = Instant::now();
        let error = client.send("127.0.0.1", peer.port, sparse(64 << 20)).unwrap_err();
        assert!(start.elapsed() < SLACK);
        assert!(["reset", "closed-early"].contains(&error.code()), "{error:?}");
        peer.end();
        error
    });
    errors.collect()
}

#[test]
fn a_reset_during_the_file_fails() {
    for error in ended_mid_file(reset) {
        assert!(matches!(error, ClientError::Reset { .. }), "{error:?}");
    }
}

#[test]
fn a_reset_reported_to_another_call_is_still_a_reset() {
    let (ask, asked) = mpsc::channel();
    let (told, tell) = mpsc::channel();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        asked.recv_timeout(BOUND).unwrap();
        reset(stream);
        told.send(()).unwrap();
    });
    let client = client();
    let mut connection = connect(&client, peer.port);
    block(connection.greet()).unwrap();
    ask.send(()).unwrap();
    tell.recv_timeout(BOUND).unwrap();
    peer.end();
    assert!(connection.stream.take_error().unwrap().is_some());
    let error = connection.check_open().unwrap_err();
    assert!(matches!(error, ClientError::Reset { .. }), "{error:?}");
}

#[test]
fn a_fin_during_the_file_fails() {
    let errors = ended_mid_file(|mut stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(rest(&mut stream).is_err(), "the client resets");
    });
    for error in errors {
        assert!(matches!(error, ClientError::ClosedEarly { .. }), "{error:?}");
    }
}

#[test]
fn a_fin_before_a_small_file_fails() {
    // The greeting and the FIN arrive in one segment, so the connection is closed before the file
    // is sent.
    let peer = Peer::new(|mut stream| {
        let flags = rustix::net::SendFlags::MORE;
        rustix::net::send(&stream, GREETING, flags).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        rest(&mut stream)
    });
    let error = client().send("127.0.0.1", peer.port, file(b"small")).unwrap_err();
    assert!(matches!(error, ClientError::ClosedEarly { .. }), "{error:?}");
    assert_eq!(peer.end().unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_fin_received_before_sending_ours_is_not_a_confirmation() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |stream| {
        let flags = rustix::net::SendFlags::MORE;
        rustix::net::send(&stream, GREETING, flags).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = over.recv_timeout(BOUND);
    });
    let client = client();
    let mut connection = connect(&client, peer.port);
    block(connection.greet()).unwrap();
    // Skips the checks that `send` makes in between.
    let result = block(connection.finish());
    assert!(matches!(result, Err(ClientError::ClosedEarly { .. })), "{result:?}");
    drop(done);
    peer.end();
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn a_fin_that_does_not_acknowledge_all_bytes_is_not_a_confirmation() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(128 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        // Long enough for the whole file and the client's FIN to be queued.
        thread::sleep(SHORT);
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = over.recv_timeout(BOUND);
        saw_reset(stream)
    });
    let result = client().send("127.0.0.1", peer.port, sparse(1 << 20));
    let Err(ClientError::ClosedEarly { sent, .. }) = result else { panic!("{result:?}") };
    assert_eq!(sent, 1 << 20);
    drop(done);
    assert!(peer.end());
}

/// A file that exceeds the receive window: the server acknowledges all of it only by reading.
const LARGE: usize = 300_000;

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn a_server_that_closes_first_and_then_reads_never_confirms() {
    let content = pattern(LARGE);
    for round in 0..50 {
        let peer = Peer::new(|mut stream| {
            stream.write_all(GREETING).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = rest(&mut stream);
        });
        let result = client().send("127.0.0.1", peer.port, file(&content));
        peer.end();
        assert!(result.is_err(), "round {round}: {result:?}");
    }
}

/// Lets the server close and then read everything while the client waits for it.
struct SlowToWake {
    /// Set when the client has passed the whole file to the kernel.
    is_sent: Arc<AtomicBool>,
    close: mpsc::Sender<()>,
    has_read: Mutex<mpsc::Receiver<()>>,
}

impl Watch for SlowToWake {
    fn wait<'a>(
        &'a self,
        _write: bool,
        limit: Duration,
        _is_ready: &'a (dyn Fn() -> bool + Send + Sync),
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>> {
        if self.is_sent.load(Ordering::Relaxed) {
            let _ = self.close.send(());
            let _ = self.has_read.lock().unwrap().recv_timeout(BOUND);
        } else {
            thread::sleep(limit.min(Duration::from_millis(1)));
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn sleep<'a>(&'a self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        thread::sleep(time);
        Box::pin(std::future::ready(()))
    }
}

/// Waits for nothing: a future that waits stays pending.
struct NeverReady;

impl Watch for NeverReady {
    fn wait<'a>(
        &'a self,
        _write: bool,
        _limit: Duration,
        _is_ready: &'a (dyn Fn() -> bool + Send + Sync),
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>> {
        Box::pin(std::future::pending())
    }

    fn sleep<'a>(&'a self, _time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }
}

/// Otherwise the kernel would deliver the rest later, and the server would store a file that the
/// program has given up.
#[test]
fn an_upload_dropped_after_its_fin_is_reset() {
    let (dropped, may_read) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(8 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        may_read.recv_timeout(BOUND).unwrap();
        assert!(rest(&mut stream).is_err(), "the upload ended with a FIN");
    });
    let client = client();
    let (stream, address) = client.settings.connect("127.0.0.1", peer.port, None).unwrap();
    let watcher: Box<Watcher<'_>> = Box::new(|_| Ok(Box::new(NeverReady)));
    let mut connection =
        Connection::new(&client.settings, stream, Some(watcher), address, None).unwrap();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // The greeting may not have arrived yet.
    let began = std::time::Instant::now();
    while std::pin::pin!(connection.greet()).poll(&mut context).is_pending() {
        assert!(began.elapsed() < BOUND, "no greeting");
    }
    let content = pattern(100_000);
    let mut source = file(&content).into();
    let mut sending = Box::pin(connection.send(&mut source));
    assert!(sending.as_mut().poll(&mut context).is_ready(), "the kernel takes all of it");
    drop(sending);
    let mut finishing = Box::pin(connection.finish());
    assert!(finishing.as_mut().poll(&mut context).is_pending(), "nothing confirms it");
    drop(finishing);
    dropped.send(()).unwrap();
    peer.end();
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn acknowledgements_after_an_early_fin_do_not_hide_it() {
    let (close, may_close) = mpsc::channel();
    let (reads, has_read) = mpsc::channel();
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(64 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        may_close.recv_timeout(BOUND).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Fails at the end if the client resets; the rest of the file arrives before that.
        let _ = stream.read_exact(&mut [0; LARGE]);
        let _ = reads.send(());
        let _ = rest(&mut stream);
    });
    let client = client();
    let (stream, address) = client.settings.connect("127.0.0.1", peer.port, None).unwrap();
    let is_sent = Arc::new(AtomicBool::new(false));
    let watch = SlowToWake { is_sent: Arc::clone(&is_sent), close, has_read: Mutex::new(has_read) };
    let watcher: Box<Watcher<'_>> = Box::new(|_| Ok(Box::new(watch)));
    let mut connection =
        Connection::new(&client.settings, stream, Some(watcher), address, None).unwrap();
    block(connection.greet()).unwrap();
    block(connection.send(&mut file(&pattern(LARGE)).into())).unwrap();
    is_sent.store(true, Ordering::Relaxed);
    let result = block(connection.finish());
    assert!(matches!(result, Err(ClientError::ClosedEarly { .. })), "{result:?}");
    peer.end();
}

#[test]
fn a_server_that_closes_at_the_end_always_confirms() {
    for (rounds, size) in [(100, 1), (100, 300_000), (5, 20_000_000)] {
        let content = pattern(size);
        for round in 0..rounds {
            let peer = Peer::new(|mut stream| {
                stream.write_all(GREETING).unwrap();
                rest(&mut stream).unwrap().len()
            });
            let sent = client().send("127.0.0.1", peer.port, file(&content)).unwrap();
            assert!(sent.confirmed, "round {round} of {size} bytes");
            assert_eq!(peer.end(), size);
        }
    }
}

#[test]
fn closing_while_the_file_is_sent_is_never_a_confirmation() {
    // Whether the server's FIN is seen before or after the client's FIN is sent, it is not a
    // confirmation.
    for round in 0..200 {
        let peer = Peer::new(move |mut stream| {
            stream.write_all(GREETING).unwrap();
            for _ in 0..round * 50 {
                std::hint::spin_loop();
            }
            // Closing without reading sends a FIN if the file has not arrived, otherwise a reset.
        });
        let result = client().send("127.0.0.1", peer.port, file(b"small"));
        peer.end();
        assert!(result.is_err(), "round {round}: {result:?}");
    }
}

#[test]
fn a_reset_instead_of_the_confirmation_fails() {
    for delay in [Duration::ZERO, Duration::from_millis(50)] {
        let peer = Peer::new(move |mut stream| {
            greet(&mut stream, Dialect::Accio);
            assert_eq!(rest(&mut stream).unwrap(), b"content");
            thread::sleep(delay);
            reset(stream);
        });
        let error = client().send("127.0.0.1", peer.port, file(b"content")).unwrap_err();
        assert!(matches!(error, ClientError::NotKept { .. }), "{error:?}");
        assert_eq!(error.code(), "not-kept");
        assert!(!error.may_be_stored());
        peer.end();
    }
}

#[test]
fn a_late_close_within_the_timeout_confirms() {
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        let bytes = rest(&mut stream).unwrap();
        thread::sleep(SHORT);
        bytes
    });
    let sent = client().send("127.0.0.1", peer.port, file(b"content")).unwrap();
    assert!(sent.confirmed && sent.duration >= SHORT);
    assert_eq!(peer.end(), b"content");
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn without_a_close_the_file_is_unconfirmed_despite_stray_bytes() {
    for stray in [false, true] {
        let (done, over) = mpsc::channel::<()>();
        let peer = Peer::new(move |mut stream| {
            greet(&mut stream, Dialect::Accio);
            stream.write_all(GREETING).unwrap();
            let bytes = rest(&mut stream).unwrap();
            if stray {
                while over.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                    let _ = stream.write(b"stray");
                    thread::sleep(SHORT / 10);
                }
            }
            let _ = over.recv_timeout(BOUND);
            bytes
        });
        let start = Instant::now();
        let client = builder().confirm_timeout(SHORT).build().unwrap();
        let sent = client.send("127.0.0.1", peer.port, file(b"content")).unwrap();
        assert!(!sent.confirmed);
        assert!((SHORT..SHORT + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
        drop(done);
        assert_eq!(peer.end(), b"content", "the connection ended without a reset");
    }
}

/// A program that retries must know whether the server may store the file twice.
#[test]
fn an_upload_that_fails_may_be_stored_only_if_its_end_was_sent() {
    let limited = || builder().stall_timeout(SHORT).transfer_timeout(SHORT).build().unwrap();
    let fail = |file: File, read: fn(&mut TcpStream)| {
        let (done, over) = mpsc::channel::<()>();
        let peer = Peer::new(move |mut stream| {
            greet(&mut stream, Dialect::Accio);
            read(&mut stream);
            let _ = over.recv_timeout(BOUND);
        });
        let error = limited().send("127.0.0.1", peer.port, file).unwrap_err();
        drop(done);
        peer.end();
        error
    };
    let complete = fail(file(b"content"), |stream| assert_eq!(rest(stream).unwrap(), b"content"));
    assert!(matches!(complete, ClientError::TransferTimeout { .. }), "{complete:?}");
    assert!(complete.may_be_stored(), "{complete:?}");
    let partial = fail(sparse(64 << 20), |_| {});
    assert!(!partial.may_be_stored(), "{partial:?}");
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn a_stall_after_the_end_of_the_file_leaves_it_possibly_stored() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        // The client queues the file and its end, of which the server accepts a part.
        socket2::SockRef::from(&stream).set_recv_buffer_size(8 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        let _ = over.recv_timeout(BOUND);
    });
    let client = builder().stall_timeout(SHORT).build().unwrap();
    let error = client.send("127.0.0.1", peer.port, file(&pattern(100_000))).unwrap_err();
    let ClientError::Stalled { sent, end_sent, .. } = error else { panic!("{error:?}") };
    assert_eq!((sent, end_sent, error.may_be_stored()), (100_000, true, true));
    drop(done);
    peer.end();
}
