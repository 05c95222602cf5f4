//! How a transfer ends: resets, closes, confirmations.

use super::*;

/// Sends a file that is larger than all buffers, by both paths, to a peer that ends it early.
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
fn a_reset_mid_file() {
    for error in ended_mid_file(reset) {
        assert!(matches!(error, ClientError::Reset { .. }), "{error:?}");
    }
}

#[test]
fn a_reset_that_another_call_was_told_of_is_still_a_reset() {
    let (told, tell) = mpsc::channel();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        reset(stream);
        told.send(()).unwrap();
    });
    let client = client();
    let mut connection = connect(&client, peer.port);
    connection.greet().unwrap();
    tell.recv_timeout(BOUND).unwrap();
    peer.end();
    assert!(connection.stream.take_error().unwrap().is_some());
    let error = connection.check_open().unwrap_err();
    assert!(matches!(error, ClientError::Reset { .. }), "{error:?}");
}

#[test]
fn a_fin_mid_file() {
    let errors = ended_mid_file(|mut stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(rest(&mut stream).is_err(), "the client resets");
    });
    for error in errors {
        assert!(matches!(error, ClientError::ClosedEarly { .. }), "{error:?}");
    }
}

#[test]
fn a_fin_before_a_small_file() {
    // The greeting and the FIN come in one segment: the file would go into a connection that is
    // over.
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
fn a_fin_that_was_there_before_ours_confirms_nothing() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |stream| {
        let flags = rustix::net::SendFlags::MORE;
        rustix::net::send(&stream, GREETING, flags).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = over.recv_timeout(BOUND);
    });
    let client = client();
    let mut connection = connect(&client, peer.port);
    connection.greet().unwrap();
    // Without the checks in between that a send makes.
    let result = connection.finish();
    assert!(matches!(result, Err(ClientError::ClosedEarly { .. })), "{result:?}");
    drop(done);
    peer.end();
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux tells what is acknowledged")]
fn a_fin_that_does_not_acknowledge_everything_confirms_nothing() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(128 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        // Long enough for all of the file, and the client's FIN, to be queued.
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

#[test]
fn a_server_that_closes_as_the_file_leaves_never_confirms_it() {
    // Whether its FIN is seen before ours leaves or after, it is no confirmation.
    for round in 0..200 {
        let peer = Peer::new(move |mut stream| {
            stream.write_all(GREETING).unwrap();
            for _ in 0..round * 50 {
                std::hint::spin_loop();
            }
            // Closed with nothing read: a FIN, if the file is not there yet, else a reset.
        });
        let result = client().send("127.0.0.1", peer.port, file(b"small"));
        peer.end();
        assert!(result.is_err(), "round {round}: {result:?}");
    }
}

#[test]
fn a_reset_instead_of_the_confirmation() {
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
        peer.end();
    }
}

#[test]
fn a_server_that_closes_late_but_in_time_confirms() {
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
#[cfg_attr(not(linux_sys), ignore = "only Linux tells what is acknowledged")]
fn a_server_that_never_closes_has_it_unconfirmed_and_stray_bytes_gain_it_no_time() {
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
        assert_eq!(peer.end(), b"content", "a clean end, no reset");
    }
}
