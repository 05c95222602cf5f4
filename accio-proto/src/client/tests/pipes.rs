//! Tests of sources without a size.

use super::*;

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux splices")]
fn sends_pipes_to_their_end_on_both_paths() {
    let content = pattern(5 << 20);
    for size in [0, 1, 70_000, content.len()] {
        for paths in [FastPaths::default(), FastPaths::without([FastPath::Splice])] {
            let fast = paths.has(FastPath::Splice);
            let peer = good(Dialect::Accio);
            let bytes = content[..size].to_vec();
            let (source, feeder) = pipe(move |mut end| end.write_all(&bytes).unwrap());
            let client = builder().fast_paths(paths).build().unwrap();
            let sent = client.send("127.0.0.1", peer.port, source).unwrap();
            assert_eq!((sent.bytes, sent.confirmed), (size as u64, true));
            assert_eq!(
                client.settings.fast_paths.has(FastPath::Splice),
                fast,
                "splice is not refused"
            );
            feeder.join().unwrap();
            assert!(peer.end() == content[..size], "{size} bytes");
        }
    }
}

#[test]
fn sends_sockets_and_character_devices_like_pipes() {
    let peer = good(Dialect::Accio);
    let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    near.write_all(b"from a socket").unwrap();
    drop(near);
    let source = File::from(std::os::fd::OwnedFd::from(far));
    client().send("127.0.0.1", peer.port, source).unwrap();
    assert_eq!(peer.end(), b"from a socket");
    let peer = good(Dialect::Accio);
    client().send("127.0.0.1", peer.port, File::open("/dev/null").unwrap()).unwrap();
    assert_eq!(peer.end(), b"");
}

#[test]
fn a_pause_of_the_pipe_is_not_a_stall() {
    let peer = good(Dialect::Accio);
    let calls = Arc::new(Mutex::new(0));
    let (counted, seen) = (calls.clone(), calls.clone());
    let (source, feeder) = pipe(move |mut end| {
        // The pauses begin once the client waits, however late it starts.
        let started = Instant::now();
        while *seen.lock().unwrap() == 0 && started.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(1));
        }
        for part in [b"one", b"two"] {
            thread::sleep(SHORT * 3);
            end.write_all(part).unwrap();
        }
        thread::sleep(SHORT * 3);
    });
    let client = builder().stall_timeout(SHORT).on_progress(move |_| *counted.lock().unwrap() += 1);
    let sent = client.build().unwrap().send("127.0.0.1", peer.port, source).unwrap();
    assert!(sent.confirmed && sent.duration >= SHORT * 9);
    feeder.join().unwrap();
    assert_eq!(peer.end(), b"onetwo");
    assert!(*calls.lock().unwrap() >= 10, "progress is reported while the pipe is silent");
}

#[test]
fn notices_a_closed_connection_while_the_pipe_is_silent() {
    type Case = (fn(TcpStream), fn(&ClientError) -> bool);
    let ends: [Case; 2] = [
        (reset, |error| matches!(error, ClientError::Reset { .. })),
        (drop, |error| matches!(error, ClientError::ClosedEarly { .. })),
    ];
    for (end, expected) in ends {
        for paths in [FastPaths::default(), FastPaths::without([FastPath::Splice])] {
            let peer = Peer::new(move |mut stream| {
                greet(&mut stream, Dialect::Accio);
                expect(&mut stream, b"some");
                end(stream);
            });
            let (done, over) = mpsc::channel::<()>();
            let (source, feeder) = pipe(move |mut end| {
                end.write_all(b"some").unwrap();
                let _ = over.recv_timeout(BOUND);
            });
            let start = Instant::now();
            let client = builder().fast_paths(paths).build().unwrap();
            let error = client.send("127.0.0.1", peer.port, source).unwrap_err();
            assert!(expected(&error), "{error:?}");
            assert!(start.elapsed() < SLACK, "immediately, not only when the pipe has data");
            assert!(["reset", "closed-early"].contains(&error.code()), "{error:?}");
            drop(done);
            feeder.join().unwrap();
            peer.end();
        }
    }
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn a_missing_acknowledgement_is_a_stall_even_while_the_pipe_is_silent() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(64 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        let _ = over.recv_timeout(BOUND);
    });
    let (finish, finished) = mpsc::channel::<()>();
    // More than the peer's buffer holds, and less than both buffers hold.
    let (source, feeder) = pipe(move |mut end| {
        let _ = end.write_all(&pattern(1 << 20));
        let _ = finished.recv_timeout(BOUND);
    });
    let client = builder().stall_timeout(SHORT).build().unwrap();
    let mut connection = connect(&client, peer.port);
    // Disables the kernel's own limit.
    rustix::net::sockopt::set_tcp_user_timeout(&connection.stream, 0).unwrap();
    block(connection.greet()).unwrap();
    let start = Instant::now();
    let error = block(connection.send(&mut source.into())).unwrap_err();
    let ClientError::Stalled { sent, .. } = error else { panic!("{error:?}") };
    assert_eq!(sent, 1 << 20, "all that the pipe had");
    assert!(start.elapsed() < SHORT + SLACK);
    drop((done, finish));
    feeder.join().unwrap();
    peer.end();
}
